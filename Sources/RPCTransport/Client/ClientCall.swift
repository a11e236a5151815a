import NIOCore
import Synchronization

/// A call on its stream.
///
/// `@unchecked Sendable` (inherited): touched on the connection's event loop only, but for the pipes and `response`,
/// which have their own locks, and the methods that say that they go to the loop.
final class ClientCall: HTTP2Stream, TimerNode, OutboundPipeTarget, @unchecked Sendable {
    /// What the response says about itself, besides its messages.
    struct Response: Sendable {
        var initialMetadata: Metadata?
        var trailingMetadata: Metadata?
        var isEnded = false
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    let connection: ClientConnection
    var machine: ClientStreamMachine
    let inboundPipe: InboundPipe
    /// Of a call with any number of request messages.
    let outboundPipe: OutboundPipe?
    let response = Mutex(Response())

    var timerIndex = -1
    var timerDeadline = NIODeadline.distantFuture

    init(
        connection: ClientConnection, machine: ClientStreamMachine, messageLimit: Int, outboundPipe: OutboundPipe?
    ) {
        self.connection = connection
        self.inboundPipe = InboundPipe(limit: messageLimit, side: "client")
        self.machine = machine
        self.outboundPipe = outboundPipe
        super.init()
    }

    func timerFired(at now: NIODeadline) {
        self.connection.abandon(self, RPCError(.deadlineExceeded, "the deadline has passed"))
    }

    func outboundPipeChanged() {
        self.connection.loop.run { self.connection.sendPiped(self) }
    }

    /// Gives the call up: its reader sees CANCELLED at once, the server as soon as it can. Any thread.
    func cancel() {
        let error = RPCError(.cancelled, "the call was cancelled")
        self.finish(.failure(error), trailing: nil, discarding: true)
        self.connection.loop.run { self.connection.abandon(self, error) }
    }

    func received(initial: Metadata) {
        let waiters = self.response.withLock { response in
            response.initialMetadata = initial
            defer { response.waiters = [] }
            return response.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    func finish(_ end: Result<Void, RPCError>, trailing: Metadata?, discarding: Bool = false) {
        let waiters = self.response.withLock { response -> [CheckedContinuation<Void, Never>] in
            guard !response.isEnded else { return [] }
            response.isEnded = true
            response.trailingMetadata = trailing
            defer { response.waiters = [] }
            return response.waiters
        }
        for waiter in waiters { waiter.resume() }
        self.inboundPipe.finish(end, discarding: discarding)
        switch end {
        case .success: self.outboundPipe?.close(RPCError(.cancelled, "the call is over"))
        case .failure(let error): self.outboundPipe?.close(error)
        }
    }

    /// Waits for the response's headers, or for its end.
    func headers() async -> Metadata {
        await withCheckedContinuation { continuation in
            let isThere = self.response.withLock { response in
                if response.initialMetadata != nil || response.isEnded { return true }
                response.waiters.append(continuation)
                return false
            }
            if isThere { continuation.resume() }
        }
        return self.response.withLock { $0.initialMetadata ?? Metadata() }
    }
}
