import NIOCore
import Synchronization

/// The client's side of one connection.
final class ClientConnection: HTTP2Connection, TimerNode, @unchecked Sendable {
    private static let keepalivePing: UInt64 = 0x616c_6976_653f_0002

    private let configuration: RPCClientConfiguration
    /// The connection takes no new calls: it said GOAWAY, or it is gone. Called on the event loop, maybe twice.
    private let retired: @Sendable (ClientConnection) -> Void
    private var isGoingAway = false
    private var handshakeDeadline = NIODeadline.distantFuture
    private var keepaliveSentAt: NIODeadline?
    /// Why the connection ended, if somebody said so.
    private var closeReason: String?

    var timerIndex = -1
    var timerDeadline = NIODeadline.distantFuture

    init(
        loop: EventLoopContext, configuration: RPCClientConfiguration,
        retired: @escaping @Sendable (ClientConnection) -> Void
    ) {
        self.configuration = configuration
        self.retired = retired
        super.init(loop: loop, role: .client, configuration: configuration.http2)
    }

    // MARK: Connection

    override func connected() {
        self.handshakeDeadline = .now() + TimeAmount(self.configuration.connectTimeout)
        let keepalive = self.configuration.keepaliveInterval.map { NIODeadline.now() + TimeAmount($0) }
        self.loop.schedule(self, at: min(self.handshakeDeadline, keepalive ?? .distantFuture))
    }

    override func disconnected() {
        self.loop.cancelTimer(self)
        self.retired(self)
    }

    func timerFired(at now: NIODeadline) {
        guard let session = self.session else { return }
        if !session.hasReceivedSettings, now >= self.handshakeDeadline {
            return self.drop("the server speaks no HTTP/2")
        }
        guard let interval = self.configuration.keepaliveInterval else {
            if !session.hasReceivedSettings { self.loop.schedule(self, at: self.handshakeDeadline) }
            return
        }
        if let sentAt = self.keepaliveSentAt {
            if self.lastRead > sentAt {
                self.keepaliveSentAt = nil
            } else if now - sentAt >= TimeAmount(self.configuration.keepaliveTimeout) {
                return self.drop("no answer to a PING")
            }
        }
        var next = self.lastRead + TimeAmount(interval)
        if let sentAt = self.keepaliveSentAt {
            next = sentAt + TimeAmount(self.configuration.keepaliveTimeout)
        } else if next <= now {
            if !session.streams.isEmpty {
                session.ping(opaque: Self.keepalivePing)
                self.setNeedsFlush()
                self.keepaliveSentAt = now
            }
            next = now + TimeAmount(self.configuration.keepaliveTimeout)
        }
        if !session.hasReceivedSettings { next = min(next, self.handshakeDeadline) }
        self.loop.schedule(self, at: max(next, now + .milliseconds(10)))
    }

    private func drop(_ reason: String) {
        self.closeReason = reason
        self.context?.close(promise: nil)
    }

    /// Sends GOAWAY and closes. Calls under way fail.
    func shutDown() {
        self.closeReason = "the client was closed"
        self.session?.goAway(HTTP2ErrorCode.noError)
        self.close()
    }

    override func handle(_ event: consuming HTTP2Event, in buffer: ByteBuffer) {
        switch event {
        case .headers(let stream, let list, let endStream, let isOversized):
            self.received(list, endStream: endStream, isOversized: isOversized, on: self.call(stream))
        case .data(let stream, let offset, let count):
            guard let chunk = buffer.getSlice(at: buffer.readerIndex + offset, length: count) else { return }
            self.received(chunk, on: self.call(stream))
        case .end(let stream):
            let call = self.call(stream)
            if let error = call.machine.receivedEndOfData() { self.end(call, .failure(error), nil) }
        case .closed(let stream, let errorCode):
            self.closed(self.call(stream), errorCode: errorCode)
        case .goAway(_, let errorCode, let debugData):
            self.isGoingAway = true
            if errorCode != HTTP2ErrorCode.noError {
                self.closeReason = "GOAWAY, code \(errorCode) \(String(decoding: debugData, as: UTF8.self))"
            }
            self.retired(self)
        case .settings, .ping, .pingAcknowledged: break
        }
    }

    override func afterEvents() {
        if self.isGoingAway, self.session?.streams.isEmpty == true { self.close() }
    }

    /// Every stream of a client's session was made by `start`.
    @inline(__always)
    private func call(_ stream: HTTP2Stream) -> ClientCall { unsafeDowncast(stream, to: ClientCall.self) }

    // MARK: Calls

    /// Sends a request; `message` is that of a call with one. On the event loop.
    func start(_ call: ClientCall, _ head: HeaderList, message: OutboundMessage?, deadline: NIODeadline?) {
        guard let session = self.session, !self.isGoingAway else {
            var error = RPCError(.unavailable, "the connection is closing")
            error.isRefused = true
            return self.end(call, .failure(error), nil)
        }
        // Cancelled before it began.
        guard !call.response.withLock({ $0.isEnded }) else { return }
        if let message {
            call.outbound.append(message)
            call.end = .endStream
        }
        do throws(HTTP2SessionError) {
            try session.request(call, .request, head)
        } catch {
            var error = RPCError(.unavailable, "the connection takes no more calls")
            error.isRefused = true
            self.isGoingAway = true
            self.retired(self)
            return self.end(call, .failure(error), nil)
        }
        if let deadline { self.loop.schedule(call, at: deadline) }
        call.inboundPipe.attach { count in
            self.loop.run {
                self.session?.returnCredit(count, to: call)
                self.setNeedsFlush()
            }
        }
        if let pipe = call.outboundPipe {
            call.reportsProgress = true
            pipe.attach(to: call)
        }
        self.setNeedsFlush()
    }

    func sendPiped(_ call: ClientCall) {
        guard let session = self.session, let pipe = call.outboundPipe else { return }
        let content = pipe.take()
        for message in content.messages { session.send(message, on: call) }
        if content.isEnded { session.finish(call, .endStream) }
        self.setNeedsFlush()
    }

    override func streamProgressed(_ stream: HTTP2Stream, _ count: Int) {
        self.call(stream).outboundPipe?.sent(count)
    }

    private func received(_ list: HeaderList, endStream: Bool, isOversized: Bool, on call: ClientCall) {
        if isOversized {
            return self.abandon(call, RPCError(.resourceExhausted, "the response's headers are too large"))
        }
        switch call.machine.receivedHeaders(list, endStream: endStream) {
        case .initial(let metadata): call.received(initial: metadata)
        case .succeeded(let trailing): self.end(call, .success(()), trailing)
        case .failed(let error):
            self.end(call, .failure(error), error.metadata)
        case .ignore: break
        }
    }

    private func received(_ chunk: ByteBuffer, on call: ClientCall) {
        var chunk = chunk
        do throws(RPCError) {
            while let message = try call.machine.nextMessage(from: &chunk) { call.inboundPipe.append(message) }
            self.session?.returnCredit(call.machine.takeCreditOfIncompleteMessage(), to: call)
        } catch {
            self.end(call, .failure(error), nil)
        }
    }

    private func closed(_ call: ClientCall, errorCode: UInt32) {
        guard var error = call.machine.closed(errorCode: errorCode) else { return }
        if self.session == nil {
            error = RPCError(.unavailable, "the connection was lost\(self.closeReason.map { ": \($0)" } ?? "")")
        }
        if call.wasNotSent || call.id == 0 {
            error = RPCError(.unavailable, "the connection took no more calls")
            error.isRefused = true
        }
        self.end(call, .failure(error), nil)
    }

    /// Gives the call up with this status; the server is told.
    func abandon(_ call: ClientCall, _ error: RPCError) {
        guard call.machine.abandoned() else { return }
        self.end(call, .failure(error), nil)
    }

    /// The call has its status. What is still open of its stream is reset.
    private func end(_ call: ClientCall, _ end: Result<Void, RPCError>, _ trailing: Metadata?) {
        _ = call.machine.abandoned()
        if call.timerIndex >= 0 { self.loop.cancelTimer(call) }
        let isLocalEnded: Bool =
            switch call.end {
            case .submitted: true
            case .endStream: call.outbound.isEmpty
            case .open, .trailers: false
            }
        if !(call.isRemoteEnded && isLocalEnded) {
            self.session?.reset(call, HTTP2ErrorCode.cancel)
            self.setNeedsFlush()
        }
        call.finish(end, trailing: trailing)
    }
}
