import NIOCore
import Synchronization

/// A call as its caller sees it, whatever becomes of its tries.
///
/// `@unchecked Sendable`: touched on the client's event loop only, but for the pipes and `response`, which have their own
/// locks, and the methods that say that they may be called on any thread.
final class ClientCall: TimerNode, OutboundPipeTarget, @unchecked Sendable {
    /// What is to be sent.
    struct Request: Sendable {
        var path: String
        /// Of a call with one request message.
        var message: OutboundMessage?
        var expectsOneResponse: Bool
        var options: RPCCallOptions
        var deadline: NIODeadline?
    }

    /// What the response says about itself, besides its messages.
    struct Response: Sendable {
        var initialMetadata: Metadata?
        var trailingMetadata: Metadata?
        var isEnded = false
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    let request: Request
    let inboundPipe: InboundPipe
    /// Of a call with any number of request messages.
    let outboundPipe: OutboundPipe?
    let response = Mutex(Response())

    private let channel: ClientChannel
    private(set) var isOver = false
    /// Whether the channel's queue has the call. The channel's own.
    var isWaiting = false
    private var retry: CallRetry
    private(set) var attempt: ClientAttempt?
    /// When the next try begins.
    private var retryAt: NIODeadline?
    /// Messages out of the pipe, kept for another try until the call is committed.
    private var kept: [OutboundMessage] = []
    private var keptBytes = 0
    private var isRequestEnded = false
    /// The most that a try has sent: what the pipe was told.
    private var reported = 0

    var timerIndex = -1
    var timerDeadline = NIODeadline.distantFuture

    init(_ request: Request, streams: Bool, channel: ClientChannel) {
        self.request = request
        self.channel = channel
        self.inboundPipe = InboundPipe(limit: channel.configuration.maximumMessageBytes, side: "client")
        self.retry = CallRetry(request.options.retryPolicy ?? channel.configuration.retryPolicy)
        self.outboundPipe = streams ? OutboundPipe(limit: channel.configuration.streamOutboundBytes) : nil
    }

    // MARK: Any thread

    func begin() { self.channel.loop.run { self.start() } }

    /// Gives the call up: its reader sees CANCELLED at once, the server as soon as it can.
    func cancel() {
        let error = RPCError(.cancelled, "the call was cancelled")
        self.publish(.failure(error), trailing: nil, discarding: true)
        self.channel.loop.run { self.giveUp(error) }
    }

    func outboundPipeChanged() { self.channel.loop.run { self.sendPiped() } }

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

    // MARK: Event loop

    private func start() {
        guard !self.isOver else { return }
        self.outboundPipe?.attach(to: self)
        self.setTimer()
        self.channel.start(self)
    }

    func timerFired(at now: NIODeadline) {
        if let deadline = self.request.deadline, deadline <= now {
            let error = RPCError(.deadlineExceeded, "the deadline has passed")
            return self.giveUp(self.isWaiting ? self.channel.deadlinePassed : error)
        }
        if let retryAt = self.retryAt, retryAt <= now {
            self.retryAt = nil
            self.setTimer()
            self.channel.start(self)
        } else {
            self.setTimer()
        }
    }

    private func setTimer() {
        let next = min(self.request.deadline ?? .distantFuture, self.retryAt ?? .distantFuture)
        if next < .distantFuture { self.channel.loop.schedule(self, at: next) }
    }

    /// The request's headers for one more try.
    func head(authority: String, userAgent: String, now: NIODeadline) -> HeaderList {
        var head = HeaderList()
        head.append(":path", self.request.path.utf8)
        head.append(":authority", authority.utf8)
        head.append("te", "trailers")
        head.append("content-type", "application/grpc")
        if !userAgent.isEmpty { head.append("user-agent", userAgent.utf8) }
        if let deadline = self.request.deadline {
            let left = max(1, (deadline - now).nanoseconds)
            head.append("grpc-timeout", GRPCTimeout.encode(nanoseconds: left).utf8)
        }
        head.append("grpc-accept-encoding", RPCCompression.accepted)
        if let compression = self.request.options.compression {
            head.append("grpc-encoding", compression.rawValue.utf8)
        }
        if self.retry.previousAttempts > 0 {
            var metadata = self.request.options.metadata
            metadata.removeAll("grpc-previous-rpc-attempts")
            head.append(contentsOf: metadata.list)
            head.append("grpc-previous-rpc-attempts", "\(self.retry.previousAttempts)".utf8)
        } else {
            head.append(contentsOf: self.request.options.metadata.list)
        }
        return head
    }

    /// A try is on its way: whatever of the request there is goes along.
    func begun(_ attempt: ClientAttempt) {
        self.attempt = attempt
        for message in self.kept { attempt.connection.send(message, on: attempt) }
        if self.isRequestEnded { attempt.connection.finishRequest(of: attempt) }
        self.sendPiped()
    }

    private func sendPiped() {
        guard let attempt = self.attempt, let pipe = self.outboundPipe else { return }
        let content = pipe.take()
        for message in content.messages {
            attempt.connection.send(message, on: attempt)
            self.keep(message)
        }
        if content.isEnded, !self.isRequestEnded {
            self.isRequestEnded = true
            attempt.connection.finishRequest(of: attempt)
        }
    }

    private func keep(_ message: OutboundMessage) {
        guard !self.retry.isCommitted else { return }
        self.kept.append(message)
        self.keptBytes += message.bytes.readableBytes
        if self.keptBytes > self.channel.configuration.retryBufferBytes { self.commit() }
    }

    private func commit() {
        self.retry.commit()
        self.kept = []
    }

    /// Messages of the try have left for the socket that were charged so much.
    func sent(_ charge: Int, by attempt: ClientAttempt) {
        attempt.sentInAll += charge
        guard attempt.sentInAll > self.reported else { return }
        self.outboundPipe?.sent(attempt.sentInAll - self.reported)
        self.reported = attempt.sentInAll
    }

    func received(initial: Metadata, by attempt: ClientAttempt) {
        self.commit()
        self.inboundPipe.attach { credit, _ in
            attempt.connection.loop.run { attempt.connection.returnCredit(credit, to: attempt) }
        }
        let waiters = self.response.withLock { response in
            response.initialMetadata = initial
            defer { response.waiters = [] }
            return response.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// A try has ended, or could not begin.
    func attemptEnded(_ end: Result<Void, RPCError>, trailing: Metadata?) {
        guard !self.isOver else { return }
        self.attempt = nil
        switch end {
        case .success:
            self.channel.retryThrottle.succeeded()
            self.finish(end, trailing: trailing)
        case .failure(let error):
            let decision = self.retry.attemptFailed(
                error, &self.channel.retryThrottle, random: .random(in: 0...1))
            switch decision {
            case .fail: self.finish(end, trailing: trailing)
            case .again: self.channel.start(self)
            case .againAfter(let wait):
                let retryAt = NIODeadline.now() + TimeAmount(wait)
                // Nothing can come of it: better this error now than DEADLINE_EXCEEDED then.
                if let deadline = self.request.deadline, deadline <= retryAt {
                    return self.finish(end, trailing: trailing)
                }
                self.retryAt = retryAt
                self.setTimer()
            }
        }
    }

    /// The call fails with this; a try under way is abandoned.
    private func giveUp(_ error: RPCError) {
        guard !self.isOver else { return }
        let attempt = self.attempt
        self.finish(.failure(error), trailing: nil)
        if let attempt { attempt.connection.abandon(attempt) }
    }

    private func finish(_ end: Result<Void, RPCError>, trailing: Metadata?) {
        self.isOver = true
        self.attempt = nil
        self.kept = []
        if self.timerIndex >= 0 { self.channel.loop.cancelTimer(self) }
        self.channel.ended(self)
        self.publish(end, trailing: trailing, discarding: false)
    }

    /// Tells the caller, once.
    private func publish(_ end: Result<Void, RPCError>, trailing: Metadata?, discarding: Bool) {
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
}
