import Synchronization

/// Where handlers wait until the input says that they may go on.
final class Gate: Sendable {
    private struct Waiter {
        var id: Int
        var continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var waiters: [Waiter] = []
        var nextID = 0
        var isOpen = false
        /// Handlers that have begun and not returned.
        var running = 0
    }

    private let state = Mutex(State())

    var running: Int { self.state.withLock { $0.running } }

    func count<Result>(_ body: () async throws -> Result) async rethrows -> Result {
        self.state.withLock { $0.running += 1 }
        defer { self.state.withLock { $0.running -= 1 } }
        return try await body()
    }

    /// - Parameter stubborn: cancelling the task changes nothing.
    func wait(stubborn: Bool) async throws {
        let id = self.state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let goesOn = self.state.withLock { state in
                    if state.isOpen || (!stubborn && Task.isCancelled) { return true }
                    state.waiters.append(Waiter(id: id, continuation: continuation))
                    return false
                }
                if goesOn { continuation.resume() }
            }
        } onCancel: {
            guard !stubborn else { return }
            let waiter = self.state.withLock { state in
                state.waiters.firstIndex { $0.id == id }.map { state.waiters.remove(at: $0) }
            }
            waiter?.continuation.resume(throwing: CancellationError())
        }
    }

    /// Lets one waiter go on, or has it fail.
    func release(_ choice: Int, failing error: (any Error)?) {
        let waiter = self.state.withLock { state in
            state.waiters.isEmpty ? nil : state.waiters.remove(at: choice % state.waiters.count)
        }
        if let error { waiter?.continuation.resume(throwing: error) } else { waiter?.continuation.resume() }
    }

    /// Nobody waits any more.
    func open() {
        let waiters = self.state.withLock { state in
            state.isOpen = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.continuation.resume() }
    }
}
