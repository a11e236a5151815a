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

    static func decode(_ bytes: [UInt8]) throws(StoredDataError) -> [JournalEvent] {
        var reader = ByteReader(bytes)
        let version = try reader.byte()
        guard version == Self.formatVersion else {
            throw StoredDataError(message: "event row of unknown format \(version)")
        }
        let count = try reader.unsigned()
        guard count <= Self.maximumCount else {
            throw StoredDataError(message: "event row claims \(count) events")
        }
        var time = Timestamp(microseconds: try reader.signed())
        var events: [JournalEvent] = []
        for _ in 0..<count {
            let typeNumber = try reader.byte()
            guard let type = SagaEventType(rawValue: Int(typeNumber)) else {
                throw StoredDataError(message: "unknown event type \(typeNumber)")
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
                    throw StoredDataError(message: "unknown failure cause \(number)")
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
        guard reader.isAtEnd else { throw StoredDataError(message: "event row has bytes left over") }
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

    private static func decodeBirth(_ reader: inout ByteReader) throws(StoredDataError) -> SagaBirth {
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
