/// Packs the events of one flush into the bytes of one `saga_event` row, and back.
///
/// Format 1: the format (1 byte), count, time of the first event (microseconds); then per event: type (1 byte),
/// presence and flags (1 byte each), time since the event before, and what is present.
/// Numbers are LEB128 varints (signed ones zigzag), texts and bytes are length-prefixed.
///
/// From format 2 on a row has room to grow: the byte 2, the row's format, count and time as above; then per event its length,
/// its type, a byte whose lowest bit says that whoever doesn't know the type may ignore it, the event as above, and up to
/// its end further fields: the number doubled, plus one if it may be ignored, and a blob. What is unknown and may not be
/// ignored makes the row one of a newer format than is read here. So each such addition raises the format, which is written once
/// all live instances read it (`ClusterFeature.events(format:)`).
enum JournalEventCodec {
    /// The newest format that this program reads.
    static let newest = 2
    private static let extensible: UInt8 = 2
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

    /// - Parameter format: 1, which every program reads, unless something needs another.
    static func encode(_ events: [JournalEvent], format: Int = 1) -> [UInt8] {
        var writer = ByteWriter()
        let isExtensible = format >= Int(Self.extensible)
        writer.byte(isExtensible ? Self.extensible : 1)
        if isExtensible { writer.unsigned(UInt64(format)) }
        writer.unsigned(UInt64(events.count))
        var time = events.first?.time ?? Timestamp(microseconds: 0)
        writer.signed(time.microseconds)
        for event in events {
            if isExtensible {
                var body = ByteWriter()
                body.unsigned(UInt64(event.type.rawValue))
                body.byte(0)
                Self.encode(event, since: time, into: &body)
                writer.blob(body.bytes)
            } else {
                writer.byte(UInt8(event.type.rawValue))
                Self.encode(event, since: time, into: &writer)
            }
            time = event.time
        }
        return writer.bytes
    }

    private static func encode(_ event: JournalEvent, since time: Timestamp, into writer: inout ByteWriter) {
        var presence: Presence = []
        if event.step != nil { presence.insert(.step) }
        if event.attempt != 0 || event.generation != 0 { presence.insert(.attempt) }
        if !event.reason.isEmpty { presence.insert(.reason) }
        if !event.message.isEmpty { presence.insert(.message) }
        if event.retryAt != nil { presence.insert(.retryAt) }
        if event.output != nil { presence.insert(.output) }
        if event.birth != nil { presence.insert(.birth) }
        if event.cause != nil { presence.insert(.cause) }
        writer.byte(presence.rawValue)
        writer.byte(event.flags.rawValue)
        writer.signed(event.time.microseconds &- time.microseconds)
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

    /// - Throws: `StoredDataError`, with `newerFormat` if a newer program reads it.
    static func decode(_ bytes: [UInt8]) throws(StoredDataError) -> [JournalEvent] {
        var reader = ByteReader(bytes)
        let layout = try reader.byte()
        guard layout == 1 || layout == Self.extensible else {
            throw layout == 0
                ? StoredDataError(message: "event row of format 0") : .newer(Int(layout), "an event row")
        }
        let format = layout == Self.extensible ? try reader.count(limit: 1_000_000) : 1
        let count = try reader.unsigned()
        guard count <= Self.maximumCount else {
            throw StoredDataError(message: "event row claims \(count) events")
        }
        var time = Timestamp(microseconds: try reader.signed())
        var events: [JournalEvent] = []
        for _ in 0..<count {
            let event: JournalEvent
            if layout == Self.extensible {
                event = try Self.decodeExtensible(try reader.blob(), since: time, format: format)
            } else {
                let number = try reader.byte()
                guard let type = SagaEventType(rawValue: Int(number)), type != .unspecified else {
                    throw StoredDataError(message: "unknown event type \(number)")
                }
                event = try Self.decode(type, since: time, &reader)
            }
            time = event.time
            events.append(event)
        }
        guard reader.isAtEnd else { throw StoredDataError(message: "event row has bytes left over") }
        return events
    }

    private static func decodeExtensible(
        _ body: [UInt8], since time: Timestamp, format: Int
    ) throws(StoredDataError) -> JournalEvent {
        /// What isn't known here: damaged, unless the row says that it is of a newer format.
        func unknown(_ what: String) -> StoredDataError {
            format > Self.newest ? .newer(format, what) : StoredDataError(message: "unknown \(what)")
        }
        var reader = ByteReader(body)
        let number = try reader.unsigned()
        let mayBeIgnored = try reader.byte() & 1 != 0
        guard let type = SagaEventType(rawValue: Int(clamping: number)), type != .unspecified else {
            guard mayBeIgnored else { throw unknown("event type \(number)") }
            // Its place is taken, and nothing else is known of it.
            _ = try reader.byte()
            _ = try reader.byte()
            let time = Timestamp(microseconds: time.microseconds &+ (try reader.signed()))
            return JournalEvent(type: .unspecified, time: time, step: nil)
        }
        let event: JournalEvent
        do throws(StoredDataError) {
            event = try Self.decode(type, since: time, &reader)
        } catch {
            throw format > Self.newest ? .newer(format, error.message) : error
        }
        while !reader.isAtEnd {
            // No field has been added yet.
            let field = try reader.unsigned()
            _ = try reader.blob()
            guard field & 1 != 0 else { throw unknown("field \(field >> 1) of event type \(number)") }
        }
        return event
    }

    private static func decode(
        _ type: SagaEventType, since time: Timestamp, _ reader: inout ByteReader
    ) throws(StoredDataError) -> JournalEvent {
        let presence = Presence(rawValue: try reader.byte())
        let flags = JournalEvent.Flags(rawValue: try reader.byte())
        let time = Timestamp(microseconds: time.microseconds &+ (try reader.signed()))
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
        return event
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
