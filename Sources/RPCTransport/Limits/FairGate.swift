import Synchronization

/// Lets so many through at a time. While some wait, each client has its turn: who asks for much waits for himself.
package final class FairGate<Client: Hashable & Sendable>: Sendable {
    private struct Waiter {
        var id: UInt64
        /// False: its task was cancelled.
        var turn: CheckedContinuation<Bool, Never>
    }

    private struct State {
        var free: Int
        var waiting: [Client: [Waiter]] = [:]
        /// Clients of whom some wait, the next one first.
        var order: [Client] = []
        var nextID: UInt64 = 0
    }

    private let state: Mutex<State>
    private let onWait: @Sendable () -> Void

    /// - Parameter onWait: told of each that has to wait.
    package init(permits: Int, onWait: @escaping @Sendable () -> Void = {}) {
        self.state = Mutex(State(free: max(1, permits)))
        self.onWait = onWait
    }

    /// Runs `body` when it is this client's turn.
    ///
    /// - Throws: `body`'s errors, and `CancellationError` if the task is cancelled while it waits.
    package nonisolated(nonsending) func pass<Result>(
        _ client: Client, _ body: () async throws -> Result
    ) async throws -> Result {
        try await self.enter(client)
        defer { self.leave() }
        return try await body()
    }

    var waiting: Int { self.state.withLock { $0.waiting.values.reduce(0) { $0 + $1.count } } }

    private nonisolated(nonsending) func enter(_ client: Client) async throws {
        let id: UInt64? = self.state.withLock { state in
            if state.free > 0 {
                state.free -= 1
                return nil
            }
            state.nextID &+= 1
            return state.nextID
        }
        guard let id else { return }
        self.onWait()
        let isLetThrough = await withTaskCancellationHandler {
            await withCheckedContinuation { turn in
                let answer: Bool? = self.state.withLock { state in
                    if Task.isCancelled { return false }
                    if state.free > 0 {
                        // Somebody has left since we looked.
                        state.free -= 1
                        return true
                    }
                    if state.waiting[client] == nil { state.order.append(client) }
                    state.waiting[client, default: []].append(Waiter(id: id, turn: turn))
                    return nil
                }
                if let answer { turn.resume(returning: answer) }
            }
        } onCancel: {
            let waiter: Waiter? = self.state.withLock { state in
                guard let index = state.waiting[client]?.firstIndex(where: { $0.id == id }) else { return nil }
                let waiter = state.waiting[client]?.remove(at: index)
                if state.waiting[client]?.isEmpty == true {
                    state.waiting[client] = nil
                    state.order.removeAll { $0 == client }
                }
                return waiter
            }
            waiter?.turn.resume(returning: false)
        }
        guard isLetThrough else { throw CancellationError() }
    }

    private func leave() {
        let next: Waiter? = self.state.withLock { state in
            guard !state.order.isEmpty else {
                state.free += 1
                return nil
            }
            let client = state.order.removeFirst()
            let waiter = state.waiting[client]?.removeFirst()
            if state.waiting[client]?.isEmpty == false {
                state.order.append(client)
            } else {
                state.waiting[client] = nil
            }
            return waiter
        }
        next?.turn.resume(returning: true)
    }
}
