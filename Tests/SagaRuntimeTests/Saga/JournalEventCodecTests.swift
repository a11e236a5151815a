import Testing

@testable import SagaRuntime

@Suite struct JournalEventCodecTests {
    private static let events: [JournalEvent] = {
        var started = JournalEvent(type: .sagaStarted, time: MachineHarness.start, step: nil)
        started.birth = SagaBirth(
            type: "DEVICE_CREATION", definitionVersion: 1, deadline: MachineHarness.start + .seconds(600),
            requestID: "r-1", request: [1, 2, 0, 255], hasSecrets: true)
        return [
            started,
            JournalEvent(
                type: .stepRetrying, time: MachineHarness.start + .milliseconds(5), step: 1, attempt: 2, generation: 3,
                flags: [.outcomeUnknown], cause: .timedOut, reason: "R", message: "später ☎️",
                retryAt: MachineHarness.start + .seconds(2), output: "{}"),
            // The clock may be corrected backwards.
            JournalEvent(type: .sagaCompleted, time: MachineHarness.start + .milliseconds(-7), step: nil),
        ]
    }()

    @Test func roundTrip() throws {
        #expect(try JournalEventCodec.decode(JournalEventCodec.encode(Self.events)) == Self.events)
        #expect(try JournalEventCodec.decode(JournalEventCodec.encode([])) == [])
    }

    @Test func formatWithRoomToGrow() throws {
        let bytes = JournalEventCodec.encode(Self.events, format: 2)
        #expect(bytes.first == 2)
        #expect(try JournalEventCodec.decode(bytes) == Self.events)
        #expect(try JournalEventCodec.decode(JournalEventCodec.encode(Self.events, format: 9)) == Self.events)
    }

    /// A row of one event, as a newer program might write it: spelled out here, so that no encoder can be wrong the same way.
    private static func row(
        format: UInt64, type: UInt64, mayBeIgnored: Bool = false, cause: UInt8? = nil,
        fields: [(number: UInt64, mayBeIgnored: Bool)] = []
    ) -> [UInt8] {
        var body = ByteWriter()
        body.unsigned(type)
        body.byte(mayBeIgnored ? 1 : 0)
        body.byte(cause == nil ? 1 : 129)  // what is present: a step, a cause
        body.byte(0)  // flags
        body.signed(5)  // after the row's time
        body.unsigned(1)  // the step
        if let cause { body.byte(cause) }
        for field in fields {
            body.unsigned(field.number << 1 | (field.mayBeIgnored ? 1 : 0))
            body.blob([1, 2, 3])
        }
        var row = ByteWriter()
        row.byte(2)
        row.unsigned(format)
        row.unsigned(1)
        row.signed(MachineHarness.start.microseconds)
        row.blob(body.bytes)
        return row.bytes
    }

    private static let later = MachineHarness.start + .microseconds(5)

    @Test func unknownThatMayBeIgnoredIsIgnored() throws {
        let event = JournalEvent(type: .unspecified, time: Self.later, step: nil)
        let bytes = Self.row(format: 3, type: 900, mayBeIgnored: true, fields: [(7, false)])
        #expect(try JournalEventCodec.decode(bytes) == [event])
        let known = JournalEvent(type: .stepSucceeded, time: Self.later, step: 1)
        #expect(try JournalEventCodec.decode(Self.row(format: 3, type: 4, fields: [(7, true), (8, true)])) == [known])
        // It takes its place among the events, and changes nothing else.
        var generator = SplitMix64(state: 1)
        var saga = try SagaHistory(
            id: SagaID(milliseconds: 1, using: &generator),
            rows: [EventRow(lastSequence: 3, events: JournalEventCodec.encode(Self.events))]
        ) { _, _ in ["A", "B"] }.snapshot
        var expected = saga
        expected.lastSequence += 1
        expected.updatedAt = Self.later
        let seen = try saga.apply(event)
        #expect(saga == expected)
        #expect(seen.sequence == 4 && seen.type == .unspecified && seen.step.isEmpty)
    }

    /// Newer, if the row is of a format that isn't read here; damaged, if it claims to be of one that is.
    @Test(arguments: [
        (row(format: 3, type: 900), 3 as Int?), (row(format: 2, type: 900), nil),
        (row(format: 3, type: 4, fields: [(7, false)]), 3), (row(format: 2, type: 4, fields: [(7, false)]), nil),
        (row(format: 3, type: 4, fields: [(6, true), (7, false)]), 3),
        (row(format: 5, type: 6, cause: 77), 5), (row(format: 2, type: 6, cause: 77), nil),
        ([9, 1, 2, 3], 9), ([0], nil), ([1, 1, 0, 77, 0, 0, 0], nil),
    ])
    func unknownThatMayNotBeIgnored(bytes: [UInt8], newerFormat: Int?) {
        let error = #expect(throws: StoredDataError.self) { try JournalEventCodec.decode(bytes) }
        #expect(error?.newerFormat == newerFormat)
    }

    @Test(arguments: [1, 2]) func everyTruncationThrows(format: Int) {
        let bytes = JournalEventCodec.encode(Self.events, format: format)
        for length in 0..<bytes.count {
            #expect(throws: StoredDataError.self) { try JournalEventCodec.decode(Array(bytes[..<length])) }
        }
        #expect(throws: StoredDataError.self) { try JournalEventCodec.decode(bytes + [0]) }
    }

    @Test(arguments: 0..<500 as Range<UInt64>) func damagedRowsNeverTrap(seed: UInt64) {
        var generator = SplitMix64(state: seed)
        var bytes = JournalEventCodec.encode(Self.events, format: Int(seed % 3) + 1)
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
            bytes[Int.random(in: bytes.indices, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
        }
        guard let events = try? JournalEventCodec.decode(bytes) else { return }
        var generatorForID = SplitMix64(state: 1)
        let id = SagaID(milliseconds: 1, using: &generatorForID)
        let row = EventRow(lastSequence: events.count, events: bytes)
        _ = try? SagaHistory(id: id, rows: [row]) { _, _ in ["A", "B"] }
    }

    @Test func theUsualFlushIsSmall() {
        let saga = MachineHarness()
        guard let record = saga.commit() else { return #expect(Bool(false)) }
        #expect(JournalEventCodec.encode(record.granted.events).count < 80)
    }
}
