/// Packs the events of one flush into the bytes of one `saga_event` row, and back.
///
/// Layout: format version (1 byte, 1), count, time of the first event (microseconds); then per event: type (1 byte),
/// presence and flags (1 byte each), step, attempt, generation, time since the event before, and what is present.
/// Numbers are LEB128 varints (signed ones zigzag), texts and bytes are length-prefixed.
enum JournalEventCodec {
    static let formatVersion: UInt8 = 1
    /// More than any flush writes; a row that claims more is damaged.
    static let maximumCount = 10_000

    private struct Presence: OptionSet {
        var rawValue: UInt8
        static let step = Presence(rawValue: 1)
        static let attempt = Presence(rawValue: 2)
        static let reason = Presence(rawValue: 4)
        static let message = Presence(rawValue: 8)
        static let retryAt = Presence(rawValue: 16)
        static let output = Presence(rawValue: 32)
        static let birth = Presence(rawValue: 64)
        static let cause = Presence(rawValue: 128)
    }

    static func encode(_ events: [JournalEvent]) -> [UInt8] {
        var writer = ByteWriter()
        writer.byte(Self.formatVersion)
        writer.unsigned(UInt64(events.count))
        var time = events.first?.time ?? Timestamp(microseconds: 0)
        writer.signed(time.microseconds)
        for event in events {
            var presence: Presence = []
            if event.step != nil { presence.insert(.step) }
            if event.attempt != 0 || event.generation != 0 { presence.insert(.attempt) }
            if !event.reason.isEmpty { presence.insert(.reason) }
            if !event.message.isEmpty { presence.insert(.message) }
            if event.retryAt != nil { presence.insert(.retryAt) }
            if event.output != nil { presence.insert(.output) }
            if event.birth != nil { presence.insert(.birth) }
            if event.cause != nil { presence.insert(.cause) }
            writer.byte(UInt8(event.type.rawValue))
            writer.byte(presence.rawValue)
            writer.byte(event.flags.rawValue)
            writer.signed(event.time.microseconds &- time.microseconds)
            time = event.time
            if let step = event.step { writer.unsigned(UInt64(step)) }
            if presence.contains(.attempt) {
                writer.unsigned(UInt64(event.attempt))
                writer.unsigned(UInt64(event.generation))
            }
            if let cause = event.cause { writer.byte(UInt8(cause.rawValue)) }
            if presence.contains(.reason) { writer.text(event.reason) }
            if presence.contains(.message) { writer.text(event.message) }
            if let retryAt = event.retryAt { writer.signed(retryAt.microseconds &- event.time.microseconds) }
            if let output = event.output { writer.text(output) }
            if let birth = event.birth { Self.encode(birth, into: &writer) }
        }
        return writer.bytes
    }

    static func decode(_ bytes: [UInt8]) throws(JournalDecodingError) -> [JournalEvent] {
        var reader = ByteReader(bytes)
        let version = try reader.byte()
        guard version == Self.formatVersion else {
            throw JournalDecodingError(message: "event row of unknown format \(version)")
        }
        let count = try reader.unsigned()
        guard count <= Self.maximumCount else {
            throw JournalDecodingError(message: "event row claims \(count) events")
        }
        var time = Timestamp(microseconds: try reader.signed())
        var events: [JournalEvent] = []
        for _ in 0..<count {
            let typeNumber = try reader.byte()
            guard let type = SagaEventType(rawValue: Int(typeNumber)) else {
                throw JournalDecodingError(message: "unknown event type \(typeNumber)")
            }
            let presence = Presence(rawValue: try reader.byte())
            let flags = JournalEvent.Flags(rawValue: try reader.byte())
            time = Timestamp(microseconds: time.microseconds &+ (try reader.signed()))
            var event = JournalEvent(type: type, time: time, step: nil, flags: flags)
            if presence.contains(.step) { event.step = try reader.count(limit: 255) }
            if presence.contains(.attempt) {
                event.attempt = try reader.count(limit: 1_000_000)
                event.generation = try reader.count(limit: 1_000_000)
            }
            if presence.contains(.cause) {
                let number = try reader.byte()
                guard let cause = FailureCause(rawValue: Int(number)) else {
                    throw JournalDecodingError(message: "unknown failure cause \(number)")
                }
                event.cause = cause
            }
            if presence.contains(.reason) { event.reason = try reader.text() }
            if presence.contains(.message) { event.message = try reader.text() }
            if presence.contains(.retryAt) {
                event.retryAt = Timestamp(microseconds: time.microseconds &+ (try reader.signed()))
            }
            if presence.contains(.output) { event.output = try reader.text() }
            if presence.contains(.birth) { event.birth = try Self.decodeBirth(&reader) }
            events.append(event)
        }
        guard reader.isAtEnd else { throw JournalDecodingError(message: "event row has bytes left over") }
        return events
    }

    private static func encode(_ birth: SagaBirth, into writer: inout ByteWriter) {
        writer.text(birth.type)
        writer.unsigned(UInt64(birth.definitionVersion))
        writer.signed(birth.deadline.microseconds)
        writer.byte(birth.hasSecrets ? 1 : 0)
        writer.text(birth.requestID)
        writer.blob(birth.request)
    }

    private static func decodeBirth(_ reader: inout ByteReader) throws(JournalDecodingError) -> SagaBirth {
        SagaBirth(
            type: try reader.text(), definitionVersion: try reader.count(limit: 32_767),
            deadline: Timestamp(microseconds: try reader.signed()), hasSecrets: try reader.byte() != 0,
            requestID: try reader.text(), request: try reader.blob())
    }
}

extension SagaBirth {
    /// In the order of the packed form.
    fileprivate init(
        type: String, definitionVersion: Int, deadline: Timestamp, hasSecrets: Bool, requestID: String,
        request: [UInt8]
    ) {
        self.init(
            type: type, definitionVersion: definitionVersion, deadline: deadline, requestID: requestID,
            request: request, hasSecrets: hasSecrets)
    }
}

/// Appends packed values.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    init() { self.bytes.reserveCapacity(256) }

    mutating func byte(_ value: UInt8) { self.bytes.append(value) }

    mutating func unsigned(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            self.bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        self.bytes.append(UInt8(rest))
    }

    mutating func signed(_ value: Int64) {
        self.unsigned(UInt64(bitPattern: (value << 1) ^ (value >> 63)))
    }

    mutating func text(_ value: String) {
        self.unsigned(UInt64(value.utf8.count))
        self.bytes.append(contentsOf: value.utf8)
    }

    mutating func blob(_ value: [UInt8]) {
        self.unsigned(UInt64(value.count))
        self.bytes.append(contentsOf: value)
    }
}

/// Reads packed values; throws, never traps, whatever the bytes are.
struct ByteReader {
    private let bytes: [UInt8]
    private var offset = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { self.offset == self.bytes.count }

    mutating func byte() throws(JournalDecodingError) -> UInt8 {
        guard self.offset < self.bytes.count else { throw JournalDecodingError(message: "event row is cut short") }
        defer { self.offset += 1 }
        return self.bytes[self.offset]
    }

    mutating func unsigned() throws(JournalDecodingError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let byte = try self.byte()
            guard shift < 63 || byte <= 1 else { throw JournalDecodingError(message: "number too large") }
            value |= UInt64(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return value }
            shift += 7
            guard shift <= 63 else { throw JournalDecodingError(message: "number too long") }
        }
    }

    mutating func signed() throws(JournalDecodingError) -> Int64 {
        let value = try self.unsigned()
        return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1)
    }

    mutating func count(limit: UInt64) throws(JournalDecodingError) -> Int {
        let value = try self.unsigned()
        guard value <= limit else { throw JournalDecodingError(message: "number \(value) is over \(limit)") }
        return Int(value)
    }

    mutating func blob() throws(JournalDecodingError) -> [UInt8] {
        let length = try self.count(limit: UInt64(self.bytes.count))
        guard length <= self.bytes.count - self.offset else {
            throw JournalDecodingError(message: "event row is cut short")
        }
        defer { self.offset += length }
        return Array(self.bytes[self.offset..<self.offset + length])
    }

    mutating func text() throws(JournalDecodingError) -> String {
        let bytes = try self.blob()
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw JournalDecodingError(message: "text is not UTF-8")
        }
        return text
    }
}
