import Synchronization
import Testing

@testable import RPCTransport

@Suite struct FairGateTests {
    /// Clients in the order in which they were let through.
    private final class Record: Sendable {
        private let names = Mutex<[String]>([])
        func note(_ name: String) { self.names.withLock { $0.append(name) } }
        var all: [String] { self.names.withLock { $0 } }
    }

    private static func wait(until condition: () -> Bool) async {
        while !condition() { await Task.yield() }
    }

    /// Who asks for much waits for himself.
    @Test func turnsAreTakenInTurn() async throws {
        let gate = FairGate<String>(permits: 1)
        let record = Record()
        let held = Held()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await gate.pass("holder") { await held.wait() } }
            await Self.wait { held.isWaiting }
            for (index, name) in ["a", "a", "a", "b", "c", "b"].enumerated() {
                group.addTask { try await gate.pass(name) { record.note(name) } }
                await Self.wait { gate.waiting == index + 1 }
            }
            held.release()
            try await group.waitForAll()
        }
        #expect(record.all == ["a", "b", "c", "a", "b", "a"])
    }

    /// A call that is cancelled while it waits takes nobody's turn.
    @Test func cancelledCallsLeave() async throws {
        let waits = Record()
        let gate = FairGate<String>(permits: 1) { waits.note("wait") }
        let held = Held()
        let holder = Task { try await gate.pass("holder") { await held.wait() } }
        await Self.wait { held.isWaiting }
        let cancelled = Task { try await gate.pass("a") {} }
        await Self.wait { gate.waiting == 1 }
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        #expect(gate.waiting == 0)
        let next = Task { try await gate.pass("b") {} }
        await Self.wait { gate.waiting == 1 }
        held.release()
        try await holder.value
        try await next.value
        // Free again, and once only.
        try await gate.pass("c") {}
        #expect(waits.all.count == 2)
    }

    @Test func errorsGiveTheTurnBack() async throws {
        struct Failure: Error {}
        let gate = FairGate<String>(permits: 1)
        await #expect(throws: Failure.self) { try await gate.pass("a") { throw Failure() } }
        try await gate.pass("a") {}
    }
}

/// Holds somebody until it is told.
private final class Held: Sendable {
    private let state = Mutex<CheckedContinuation<Void, Never>?>(nil)

    var isWaiting: Bool { self.state.withLock { $0 != nil } }

    func wait() async {
        await withCheckedContinuation { continuation in self.state.withLock { $0 = continuation } }
    }

    func release() { self.state.withLock { $0 }?.resume() }
}
