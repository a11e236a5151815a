import NIOCore
import Synchronization

/// On whose event loop a pipe's messages are sent.
protocol OutboundPipeTarget: AnyObject, Sendable {
    /// There is something to take out of the pipe. Called on any thread.
    func outboundPipeChanged()
}

/// A stream's messages on their way from a task to the event loop, bounded: who writes past the limit waits until the
/// peer has taken enough.
final class OutboundPipe: Sendable {
    private struct Waiter {
        var id: Int
        var continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var messages: [OutboundMessage] = []
        /// What is charged for messages that were written and not yet sent to their ends: in here, and in the stream.
        var charge = 0
        var initialMetadata: Metadata?
        var wantsHeaders = false
        var isEnded = false
        var isSignalled = false
        var failure: RPCError?
        var waiters: [Waiter] = []
        var nextWaiter = 0
        var target: (any OutboundPipeTarget)?
    }

    /// What the event loop takes out.
    struct Content {
        var initialMetadata: Metadata?
        var messages: [OutboundMessage]
        var wantsHeaders: Bool
        var isEnded: Bool
    }

    /// Bytes, as messages are charged, past which a writer waits.
    let limit: Int
    private let state: Mutex<State>

    init(limit: Int) {
        self.limit = limit
        self.state = Mutex(State())
    }

    // MARK: The event loop's side

    func attach(to target: any OutboundPipeTarget) {
        let hasContent = self.state.withLock { state in
            guard state.failure == nil else { return false }
            state.target = target
            return state.isSignalled
        }
        if hasContent { target.outboundPipeChanged() }
    }

    func take() -> Content {
        self.state.withLock { state in
            let content = Content(
                initialMetadata: state.initialMetadata, messages: state.messages, wantsHeaders: state.wantsHeaders,
                isEnded: state.isEnded)
            state.initialMetadata = nil
            state.messages = []
            state.isSignalled = false
            return content
        }
    }

    /// Messages have left for the socket that were charged so much.
    func sent(_ charge: Int) {
        let waiters = self.state.withLock { state -> [Waiter] in
            state.charge -= charge
            guard state.charge <= self.limit / 2, !state.waiters.isEmpty else { return [] }
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.continuation.resume() }
    }

    /// The call is over: writing throws from now on.
    func close(_ error: RPCError) {
        let (waiters, target) = self.state.withLock { state in
            if state.failure == nil { state.failure = error }
            state.messages = []
            let result = (state.waiters, state.target)
            state.waiters = []
            state.target = nil
            return result
        }
        for waiter in waiters { waiter.continuation.resume(throwing: error) }
        _ = target  // let go of it outside of the lock
    }

    // MARK: The writer's side

    nonisolated(nonsending) func write(_ message: OutboundMessage) async throws(RPCError) {
        let (mustWait, target) = try self.change { (state) throws(RPCError) in
            if state.isEnded { throw RPCError(.internal, "a message after the end of the messages") }
            state.messages.append(message)
            state.wantsHeaders = true
            state.charge += message.charge
        }
        target?.outboundPipeChanged()
        if mustWait { try await self.wait() }
    }

    /// Has Response-Headers sent ahead of the first message. `metadata` is without effect once headers were sent.
    func sendHeaders(_ metadata: Metadata?) throws(RPCError) {
        let (_, target) = try self.change { (state) throws(RPCError) in
            if let metadata { state.initialMetadata = metadata }
            state.wantsHeaders = true
        }
        target?.outboundPipeChanged()
    }

    /// No more messages will follow.
    func end() {
        let change = try? self.change { (state) throws(RPCError) in state.isEnded = true }
        change?.target?.outboundPipeChanged()
    }

    /// Changes the state; tells whether the writer must wait, and whom to tell.
    private func change(
        _ body: (inout State) throws(RPCError) -> Void
    ) throws(RPCError) -> (mustWait: Bool, target: (any OutboundPipeTarget)?) {
        try self.state.withLock { (state) throws(RPCError) in
            if let failure = state.failure { throw failure }
            try body(&state)
            let target = state.isSignalled ? nil : state.target
            state.isSignalled = true
            return (state.charge > self.limit, target)
        }
    }

    private nonisolated(nonsending) func wait() async throws(RPCError) {
        let id = self.state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        do {
            try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                    enum Outcome { case go, fail(any Error), wait }
                    let outcome = self.state.withLock { state -> Outcome in
                        if let failure = state.failure { return .fail(failure) }
                        if state.charge <= self.limit / 2 { return .go }
                        if Task.isCancelled { return .fail(CancellationError()) }
                        state.waiters.append(Waiter(id: id, continuation: continuation))
                        return .wait
                    }
                    switch outcome {
                    case .go: continuation.resume()
                    case .fail(let error): continuation.resume(throwing: error)
                    case .wait: break
                    }
                }
            } onCancel: {
                let waiter = self.state.withLock { state -> Waiter? in
                    guard let index = state.waiters.firstIndex(where: { $0.id == id }) else { return nil }
                    return state.waiters.remove(at: index)
                }
                waiter?.continuation.resume(throwing: CancellationError())
            }
        } catch {
            throw RPCError(thrownInCall: error)
        }
    }
}
