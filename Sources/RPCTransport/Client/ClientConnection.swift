import NIOCore

/// The client's side of one connection.
final class ClientConnection: HTTP2Connection, TimerNode, @unchecked Sendable {
    private static let keepalivePing: UInt64 = 0x616c_6976_653f_0002

    private enum Phase {
        /// The server has to send its SETTINGS until then. Can transition to: ready, retired.
        case handshaking(until: NIODeadline)
        /// Takes calls. Can transition to: retired.
        case ready(since: NIODeadline)
        /// Finishes the calls that it has.
        case retired
    }

    private let channel: ClientChannel
    private var phase: Phase
    private var keepalive: ClientKeepalive?
    /// The server has answered a call.
    private var hasAnswered = false
    /// When a call last began or ended.
    private var lastCall: NIODeadline
    /// Why the connection ended, if somebody said so.
    private var closeReason: String?

    var timerIndex = -1
    var timerDeadline = NIODeadline.distantFuture

    init(channel: ClientChannel) {
        let now = NIODeadline.now()
        self.channel = channel
        self.phase = .handshaking(until: now + TimeAmount(channel.configuration.connectTimeout))
        self.lastCall = now
        super.init(loop: channel.loop, role: .client, configuration: channel.configuration.http2)
    }

    // MARK: Connection

    override func connected() { self.timerFired(at: .now()) }

    override func failed(_ error: HTTP2SessionError) {
        if self.closeReason == nil {
            self.closeReason =
                switch error {
                case .notHTTP2: "the server does not speak HTTP/2"
                case .refused(let rule): "the server asks too much (\(rule.rawValue))"
                case .failed: "HTTP/2: \(error)"
                }
        }
        super.failed(error)
    }

    override func willClose() {
        if self.closeReason == nil, self.session?.hasSentErrorGoAway == true {
            self.closeReason = "the server broke the rules of HTTP/2"
        }
        self.retire()
        // Nothing is read any more, and the server may take its time to hang up. What has not left may leave still.
        for stream in self.session?.streams ?? [] where stream.areHeadersSent {
            let attempt = self.attempt(stream)
            if attempt.machine.abandoned() { attempt.call.attemptEnded(.failure(self.lost), trailing: nil) }
        }
    }

    private var lost: RPCError {
        let reason = self.closeReason ?? self.failure.map { ConnectFailure.reason($0) }
        return RPCError(.unavailable, "the connection was lost\(reason.map { ": \($0)" } ?? "")")
    }

    override func disconnected() {
        // What never came to be is reported by the bootstrap, which knows why.
        guard self.hasBegun else { return }
        self.loop.cancelTimer(self)
        if self.closeReason == nil { self.closeReason = self.reasonOfEnd }
        self.retire()
        self.channel.closed(self, self.closeReason)
    }

    /// Why the connection ended, where nobody has said so in HTTP/2.
    private var reasonOfEnd: String? {
        let isEnd = (self.failure as? ChannelError) == .eof
        if let failure = self.failure, !isEnd { return ConnectFailure.reason(failure) }
        guard case .handshaking = self.phase else { return isEnd ? ConnectFailure.reason(ChannelError.eof) : nil }
        guard let tls = self.channel.configuration.tls else {
            return "the server hung up; it may want TLS, or not speak HTTP/2"
        }
        let guess = tls.certificateFile == nil ? "want a certificate of the client" : "not accept the client's"
        return "the server hung up right after the TLS handshake; it may \(guess)"
    }

    private func retire() {
        guard case .ready(let since) = self.phase else { return }
        self.phase = .retired
        let wasUseful =
            self.hasAnswered || .now() - since >= TimeAmount(self.channel.configuration.initialBackoff)
        self.channel.retire(self, self.closeReason, wasUseful: wasUseful)
    }

    func timerFired(at now: NIODeadline) {
        guard let session = self.session else { return }
        var next = NIODeadline.distantFuture
        if case .handshaking(let until) = self.phase {
            guard now < until else {
                let limit = ConnectFailure.text(self.channel.configuration.connectTimeout)
                return self.drop("the server sent no HTTP/2 SETTINGS within \(limit)")
            }
            next = until
        }
        if let (action, time) = self.keepalive?.check(
            now: now, lastRead: self.lastRead, hasCalls: !session.streams.isEmpty)
        {
            switch action {
            case .none: break
            case .ping:
                session.ping(opaque: Self.keepalivePing)
                self.setNeedsFlush()
            case .giveUp: return self.drop("no answer to a PING")
            }
            next = min(next, time)
        }
        if case .ready = self.phase, let timeout = self.channel.configuration.idleTimeout {
            let idleUntil = self.lastCall + TimeAmount(timeout)
            if session.streams.isEmpty, idleUntil <= now { return self.shutDown("it was idle") }
            next = min(next, idleUntil > now ? idleUntil : now + TimeAmount(timeout))
        }
        if next < .distantFuture { self.loop.schedule(self, at: next) }
    }

    /// TLS has failed, and closes the connection.
    func handshakeFailed(_ error: any Error) {
        if self.closeReason == nil { self.closeReason = "\(error)" }
    }

    private func drop(_ reason: String) {
        self.closeReason = reason
        self.context?.close(promise: nil)
    }

    /// Sends GOAWAY and closes. Calls under way fail.
    func shutDown(_ reason: String = "the client was closed") {
        self.closeReason = reason
        guard let session = self.session else {
            self.context?.close(promise: nil)
            return
        }
        session.goAway(HTTP2ErrorCode.noError)
        self.close()
    }

    override func handle(_ event: consuming HTTP2Event, in buffer: ByteBuffer) {
        switch event {
        case .headers(let stream, let list, let endStream, let isOversized):
            self.hasAnswered = true
            self.received(list, endStream: endStream, isOversized: isOversized, on: self.attempt(stream))
        case .data(let stream, let offset, let count):
            guard let chunk = buffer.getSlice(at: buffer.readerIndex + offset, length: count) else { return }
            self.received(chunk, on: self.attempt(stream))
        case .end(let stream):
            let attempt = self.attempt(stream)
            if let error = attempt.machine.receivedEndOfData() { self.end(attempt, .failure(error), nil) }
        case .closed(let stream, let errorCode): self.closed(self.attempt(stream), errorCode: errorCode)
        case .goAway(_, let errorCode, let debugData):
            if errorCode != HTTP2ErrorCode.noError {
                self.closeReason = "GOAWAY, code \(errorCode) \(String(decoding: debugData, as: UTF8.self))"
            }
            if errorCode == HTTP2ErrorCode.enhanceYourCalm, debugData.elementsEqual("too_many_pings".utf8),
                case .ready = self.phase
            {
                self.channel.keepaliveWasTooShort()
            }
            self.retire()
        case .settings: self.receivedSettings()
        case .ping, .pingAcknowledged: break
        }
    }

    private func receivedSettings() {
        guard case .handshaking = self.phase else { return }
        let now = NIODeadline.now()
        self.phase = .ready(since: now)
        self.lastCall = now
        self.keepalive = self.channel.keepaliveInterval.map {
            ClientKeepalive(
                interval: $0, timeout: self.channel.configuration.keepaliveTimeout,
                permitsWithoutCalls: self.channel.configuration.keepaliveWithoutCalls)
        }
        self.channel.ready(self)
        self.loop.cancelTimer(self)
        self.timerFired(at: now)
    }

    override func afterEvents() {
        guard let session = self.session else { return }
        switch self.phase {
        case .handshaking: break
        case .ready: self.channel.dispatch()
        case .retired: if session.streams.isEmpty { self.close() }
        }
    }

    /// Every stream of a client's session was made by `begin`.
    @inline(__always)
    private func attempt(_ stream: HTTP2Stream) -> ClientAttempt { unsafeDowncast(stream, to: ClientAttempt.self) }

    // MARK: Calls

    /// Whether the server allows one more stream.
    var hasRoom: Bool {
        guard case .ready = self.phase, let session = self.session else { return false }
        return session.streams.count < session.peerMaximumConcurrentStreams
    }

    /// Sends the call's request.
    func begin(_ call: ClientCall) {
        let attempt = ClientAttempt(
            call, on: self,
            machine: ClientStreamMachine(
                expectsOneResponse: call.request.expectsOneResponse,
                messageLimit: self.channel.configuration.maximumMessageBytes))
        if let message = call.request.message {
            attempt.outbound.append(message)
            attempt.end = .endStream
        }
        let now = NIODeadline.now()
        let head = call.head(
            authority: self.channel.authority, userAgent: self.channel.configuration.userAgent, now: now)
        do throws(HTTP2SessionError) {
            guard let session = self.session else { throw .failed(code: 0) }
            let constants: ConstantFields = self.channel.configuration.tls == nil ? .request : .requestOverTLS
            try session.request(attempt, constants, head)
        } catch {
            self.retire()
            return call.attemptEnded(.failure(Self.notSent), trailing: nil)
        }
        self.lastCall = now
        attempt.reportsProgress = call.outboundPipe != nil
        call.begun(attempt)
        self.setNeedsFlush()
    }

    private static var notSent: RPCError {
        var error = RPCError(.unavailable, "the connection took no more calls")
        error.progress = .notSent
        return error
    }

    func send(_ message: OutboundMessage, on attempt: ClientAttempt) {
        self.session?.send(message, on: attempt)
        self.setNeedsFlush()
    }

    func finishRequest(of attempt: ClientAttempt) {
        self.session?.finish(attempt, .endStream)
        self.setNeedsFlush()
    }

    func returnCredit(_ count: Int, to attempt: ClientAttempt) {
        self.session?.returnCredit(count, to: attempt)
        self.setNeedsFlush()
    }

    override func streamProgressed(_ stream: HTTP2Stream, _ charge: Int) {
        let attempt = self.attempt(stream)
        attempt.call.sent(charge, by: attempt)
    }

    private func received(_ list: HeaderList, endStream: Bool, isOversized: Bool, on attempt: ClientAttempt) {
        if isOversized {
            guard attempt.machine.abandoned() else { return }
            let error = RPCError(.resourceExhausted, "the response's headers are too large")
            return self.end(attempt, .failure(error), nil)
        }
        switch attempt.machine.receivedHeaders(list, endStream: endStream) {
        case .initial(let metadata): attempt.call.received(initial: metadata, by: attempt)
        case .succeeded(let trailing): self.end(attempt, .success(()), trailing)
        case .failed(let error): self.end(attempt, .failure(error), error.metadata)
        case .ignore: break
        }
    }

    private func received(_ chunk: ByteBuffer, on attempt: ClientAttempt) {
        var chunk = chunk
        do throws(RPCError) {
            while let message = try attempt.machine.nextMessage(from: &chunk) {
                attempt.call.inboundPipe.append(message)
            }
            self.session?.returnCredit(attempt.machine.takeCreditOfIncompleteMessage(), to: attempt)
        } catch {
            self.end(attempt, .failure(error), nil)
        }
    }

    private func closed(_ attempt: ClientAttempt, errorCode: UInt32) {
        self.lastCall = self.lastRead
        guard var error = attempt.machine.closed(errorCode: errorCode) else { return }
        if !attempt.areHeadersSent {
            // The session takes no more requests: it must not be given this one again.
            self.retire()
            error = Self.notSent
        } else if self.session == nil {
            error = self.lost
        } else if errorCode == HTTP2ErrorCode.cancel, let deadline = attempt.call.request.deadline, deadline <= .now() {
            // Servers cancel a stream whose deadline has passed (PROTOCOL-HTTP2.md).
            error = RPCError(.deadlineExceeded, "the deadline has passed")
        }
        self.end(attempt, .failure(error), nil)
    }

    /// Nobody waits for the answer any more; the server is told.
    func abandon(_ attempt: ClientAttempt) {
        guard attempt.machine.abandoned() else { return }
        self.resetIfOpen(attempt)
    }

    /// The try has its status. What is still open of its stream is reset.
    private func end(_ attempt: ClientAttempt, _ end: Result<Void, RPCError>, _ trailing: Metadata?) {
        _ = attempt.machine.abandoned()
        self.resetIfOpen(attempt)
        attempt.call.attemptEnded(end, trailing: trailing)
    }

    private func resetIfOpen(_ attempt: ClientAttempt) {
        let isLocalEnded: Bool =
            switch attempt.end {
            case .submitted: true
            case .endStream: attempt.outbound.isEmpty
            case .open, .trailers: false
            }
        guard !(attempt.isRemoteEnded && isLocalEnded) else { return }
        self.session?.reset(attempt, HTTP2ErrorCode.cancel)
        self.setNeedsFlush()
    }
}
