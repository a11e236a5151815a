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

    @Test func everyTruncationThrows() {
        let bytes = JournalEventCodec.encode(Self.events)
        for length in 0..<bytes.count {
            #expect(throws: StoredDataError.self) { try JournalEventCodec.decode(Array(bytes[..<length])) }
        }
        #expect(throws: StoredDataError.self) { try JournalEventCodec.decode(bytes + [0]) }
    }

    @Test(arguments: 0..<500 as Range<UInt64>) func damagedRowsNeverTrap(seed: UInt64) {
        var generator = SplitMix64(state: seed)
        var bytes = JournalEventCodec.encode(Self.events)
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
