import Logging
import NIOCore

/// The server's side of one connection: starts handlers, brings their answers to the wire, and ends calls that are
/// cancelled, late, or in the way of a shutdown.
final class ServerConnection: HTTP2Connection, TimerNode, @unchecked Sendable {
    private enum Drain {
        /// Calls are welcome.
        case none
        /// "No new calls, please" was sent, with a PING; calls on their way are still taken.
        case announced(until: NIODeadline)
        /// The final GOAWAY was sent; the connection closes with its last call.
        case final
    }

    /// Why no more calls are wanted.
    private enum Goodbye {
        /// The server goes.
        case shutdown
        case idle
        case age

        var debugData: String {
            switch self {
            case .shutdown: "draining"
            case .idle: "max_idle"
            case .age: "max_age"
            }
        }
    }

    private static let drainPing: UInt64 = 0x6472_6169_6e00_0001
    private static let keepalivePing: UInt64 = 0x616c_6976_653f_0001

    let shared: ServerShared
    private(set) var peer = ""
    /// Set before the client's first byte.
    var peerCertificate: PeerCertificate?
    /// Handlers that have not come to their end, whoever still waits for them.
    @exclusivity(unchecked) private(set) var runningHandlers = 0
    /// Calls whose handlers have written something in this tick.
    @exclusivity(unchecked) private var unsent: [ServerCall] = []
    private var drain = Drain.none
    private var goodbye = Goodbye.shutdown
    private var drainsWhenConnected = false
    private var isShuttingDown = false
    /// Since when there is no call; kept only if that matters.
    private var idleSince: NIODeadline?
    private var ageDeadline = NIODeadline.distantFuture
    private var drainDeadline = NIODeadline.distantFuture
    private var handshakeDeadline = NIODeadline.distantFuture
    private var headerBlockDeadline: NIODeadline?
    private var keepaliveSentAt: NIODeadline?
    private var pingPolicy: PingPolicy
    /// When calls are looked at that may be too slow; nil if there are none.
    @exclusivity(unchecked) var nextSweep: NIODeadline?
    @exclusivity(unchecked) var wantsSweep = false
    let sweepInterval: TimeAmount
    /// Calls whose requests are whole and whose handlers wait until the client has read more of what it asked for.
    @exclusivity(unchecked) var heldBack: [(ServerCall, MessageAssembler.Message)] = []

    /// Bytes of requests whose handlers have not begun.
    @exclusivity(unchecked) var bufferedBytes = 0
    /// Bytes of streaming requests that their handlers have not taken.
    @exclusivity(unchecked) var waitingBytes = 0
    /// Calls that get no credit for now, in the order in which they will.
    @exclusivity(unchecked) var withoutCredit: [ServerCall] = []
    /// The one call that gets credit while the connection keeps too many bytes.
    @exclusivity(unchecked) var favoured: ServerCall?

    /// What the server's sum holds for this connection, in whole steps.
    @exclusivity(unchecked) var countedBytes = 0

    /// Bytes of calls: what they take themselves, their headers and the requests of those whose handlers have begun.
    @exclusivity(unchecked) var callBytes = 0

    /// Whom the server counts it for; set before the connection is.
    var address = ClientAddress.none
    /// What the connections of that address keep.
    var account = KeptBytes.Account()
    /// The server has been told that the handshake is over.
    @exclusivity(unchecked) var isEstablished = false

    @exclusivity(unchecked) var timerIndex = -1
    @exclusivity(unchecked) var timerDeadline = NIODeadline.distantFuture

    init(loop: EventLoopContext, shared: ServerShared) {
        self.shared = shared
        self.pingPolicy = PingPolicy(
            minimumInterval: TimeAmount(shared.configuration.minimumPingInterval),
            permitsPingsWithoutCalls: shared.configuration.permitsPingsWithoutCalls)
        let patience = min(shared.configuration.writeTimeout, shared.configuration.limits.requestTimeout)
        self.sweepInterval = max(.milliseconds(20), min(.seconds(5), TimeAmount(patience / 4)))
        super.init(loop: loop, role: .server, configuration: shared.http2)
    }

    // MARK: Connection

    override func makeStream(_ id: Int32) -> HTTP2Stream { ServerCall(id: id, connection: self) }

    override func connected() {
        self.peer = self.context?.channel.remoteAddress?.description ?? "unknown"
        self.handshakeDeadline = .now() + TimeAmount(self.shared.configuration.handshakeTimeout)
        let keepalive = NIODeadline.now() + TimeAmount(self.shared.configuration.keepaliveInterval)
        if let age = self.shared.configuration.maximumConnectionAge {
            let nanoseconds = Double(TimeAmount(age).nanoseconds) * Double.random(in: 0.9...1.1)
            self.ageDeadline = .now() + .nanoseconds(Int64(nanoseconds))
        }
        self.loop.schedule(self, at: min(self.handshakeDeadline, keepalive, self.ageDeadline))
        self.noteIdleness()
        if self.drainsWhenConnected { self.beginDrain() }
    }

    override func disconnected() {
        self.loop.cancelTimer(self)
        // Calls hold their connection: what it keeps of them now would keep it for ever. (What was held back is let go of
        // with its streams.)
        self.unsent = []
        self.countKept(0)
        self.shared.connectionClosed(self)
    }

    override func handle(_ event: consuming HTTP2Event, in buffer: ByteBuffer) {
        switch event {
        case .headers(let stream, let list, let endStream, let isOversized):
            let call = self.call(stream)
            if call.machine == nil {
                self.begin(call, list, isOversized: isOversized)
            }
            if endStream { self.requestEnded(call) } else { self.wantsSweep = true }
        case .data(let stream, let offset, let count):
            guard let chunk = buffer.getSlice(at: buffer.readerIndex + offset, length: count) else { return }
            self.received(chunk, on: self.call(stream))
        case .end(let stream):
            self.requestEnded(self.call(stream))
        case .closed(let stream, let errorCode):
            self.closed(self.call(stream), errorCode)
        case .ping:
            self.pinged()
        case .pingAcknowledged(let opaque):
            if opaque == Self.drainPing { self.sendFinalGoAway() }
        case .settings:
            guard !self.isEstablished else { return }
            self.isEstablished = true
            self.shared.connectionEstablished(self)
        case .goAway: break
        }
    }

    override func afterEvents() {
        guard let session = self.session else { return }
        if session.hasSentHeadersOrData {
            session.hasSentHeadersOrData = false
            self.pingPolicy.sentHeadersOrData()
        }
        if let violation = session.budget?.violation { return self.refuse(violation) }
        if session.hasSentErrorGoAway, !self.isClosingDown {
            // nghttp2 has said why.
            self.shared.refusals.report(.protocolError, peer: self.peer)
            self.close()
        }
        if !self.heldBack.isEmpty { self.startHeldBack(session) }
        if self.countKept(self.keptBytes(session)), self.hasTooMuch { return self.refuse(.tooMuchKept) }
        if self.wantsSweep || session.unreadBytes > 0, self.nextSweep == nil { self.scheduleSweep() }
        if session.isInHeaderBlock {
            if self.headerBlockDeadline == nil {
                let deadline = NIODeadline.now() + TimeAmount(self.shared.configuration.handshakeTimeout)
                self.headerBlockDeadline = deadline
                if deadline < self.timerDeadline { self.loop.schedule(self, at: deadline) }
            }
        } else {
            self.headerBlockDeadline = nil
        }
        self.noteIdleness()
        self.closeIfDrained()
    }

    private func noteIdleness() {
        guard let maximum = self.shared.configuration.maximumConnectionIdle, let session = self.session else { return }
        guard session.streams.isEmpty else {
            self.idleSince = nil
            return
        }
        guard self.idleSince == nil else { return }
        let now = NIODeadline.now()
        self.idleSince = now
        if now + TimeAmount(maximum) < self.timerDeadline { self.loop.schedule(self, at: now + TimeAmount(maximum)) }
    }

    override func failed(_ error: HTTP2SessionError) {
        switch error {
        case .refused(let refusal): self.refuse(refusal)
        case .notHTTP2:
            self.shared.refusals.report(.notHTTP2, peer: self.peer)
            self.close()
        case .failed: self.close()
        }
    }

    override func becameUnwritable() {
        let deadline = NIODeadline.now() + TimeAmount(self.shared.configuration.writeTimeout)
        if deadline < self.timerDeadline { self.loop.schedule(self, at: deadline) }
    }

    /// Every event of a server's session carries a stream that `makeStream` made.
    @inline(__always)
    private func call(_ stream: HTTP2Stream) -> ServerCall { unsafeDowncast(stream, to: ServerCall.self) }

    private func pinged() {
        guard let session = self.session,
            self.pingPolicy.receivedPing(at: .now(), hasCalls: !session.streams.isEmpty)
        else { return }
        self.refuse(.tooManyPings)
    }

    /// Handshake, half-sent header blocks, keepalive, stuck writes and drain, all by one timer.
    func timerFired(at now: NIODeadline) {
        guard let session = self.session else { return }
        let configuration = self.shared.configuration
        let isShaken = session.hasReceivedSettings && session.hasSettingsAcknowledged
        if !isShaken, now >= self.handshakeDeadline { return self.refuse(.slowHandshake) }
        if let deadline = self.headerBlockDeadline, now >= deadline { return self.refuse(.slowHeaders) }
        if let since = self.unwritableSince, now - since >= TimeAmount(configuration.writeTimeout) {
            return self.refuse(.slowReader)
        }
        if let sweep = self.nextSweep, now >= sweep { self.sweep(session, at: now) }
        if self.hasTooMuch { self.refuse(.tooMuchKept) }
        if self.isClosingDown { return }
        if let sentAt = self.keepaliveSentAt {
            if self.lastRead > sentAt {
                self.keepaliveSentAt = nil
            } else if now - sentAt >= TimeAmount(configuration.keepaliveTimeout) {
                return self.drop("no answer to a PING")
            }
        }
        switch self.drain {
        case .none: break
        case .announced(let until): if now >= until { self.sendFinalGoAway() }
        case .final: break
        }
        if case .none = self.drain {
            if now >= self.ageDeadline {
                self.begin(.age)
            } else if let since = self.idleSince, let maximum = configuration.maximumConnectionIdle,
                now - since >= TimeAmount(maximum)
            {
                self.begin(.idle)
            }
        }
        if now >= self.drainDeadline { return self.endDrain() }
        // Closed by what came before: a timer would hold the connection for as long as it runs.
        guard self.session != nil else { return }

        var next = self.drainDeadline
        if !isShaken { next = min(next, self.handshakeDeadline) }
        if let sweep = self.nextSweep { next = min(next, sweep) }
        if let deadline = self.headerBlockDeadline { next = min(next, deadline) }
        if let since = self.unwritableSince { next = min(next, since + TimeAmount(configuration.writeTimeout)) }
        switch self.drain {
        case .none:
            next = min(next, self.ageDeadline)
            if let since = self.idleSince, let maximum = configuration.maximumConnectionIdle {
                next = min(next, since + TimeAmount(maximum))
            }
        case .announced(let until): next = min(next, until)
        case .final: break
        }
        if let sentAt = self.keepaliveSentAt {
            next = min(next, sentAt + TimeAmount(configuration.keepaliveTimeout))
        } else if now - self.lastRead >= TimeAmount(configuration.keepaliveInterval) {
            session.ping(opaque: Self.keepalivePing)
            self.setNeedsFlush()
            self.keepaliveSentAt = now
            next = min(next, now + TimeAmount(configuration.keepaliveTimeout))
        } else {
            next = min(next, self.lastRead + TimeAmount(configuration.keepaliveInterval))
        }
        self.loop.schedule(self, at: max(next, now + .milliseconds(10)))
    }

    private func drop(_ reason: String) {
        self.shared.logger.debug("Closing a connection: \(reason)", metadata: ["peer": "\(self.peer)"])
        self.context?.close(promise: nil)
    }

    // MARK: Drain

    /// The server goes: ends what would never end, and lets the rest finish.
    func beginDrain() {
        guard self.session != nil else {
            self.drainsWhenConnected = true
            return
        }
        guard !self.isShuttingDown else { return }
        self.isShuttingDown = true
        self.endEndlessCalls()
        self.begin(.shutdown)
    }

    /// Says goodbye twice, as a client needs that has calls on their way (double GOAWAY).
    private func begin(_ goodbye: Goodbye) {
        guard let session = self.session else { return }
        let now = NIODeadline.now()
        let time: Duration? =
            switch goodbye {
            case .shutdown: self.shared.configuration.drainTimeout
            case .age: self.shared.configuration.maximumConnectionAgeGrace
            case .idle: nil
            }
        if let time { self.drainDeadline = min(self.drainDeadline, now + TimeAmount(time)) }
        var next = self.drainDeadline
        if case .none = self.drain {
            let until = now + TimeAmount(self.shared.configuration.drainPingTimeout)
            self.goodbye = goodbye
            self.drain = .announced(until: until)
            session.announceShutdown()
            session.ping(opaque: Self.drainPing)
            next = min(next, until)
        }
        if next < self.timerDeadline || self.timerIndex < 0 { self.loop.schedule(self, at: next) }
        self.setNeedsFlush()
    }

    private func endEndlessCalls() {
        for stream in self.session?.streams ?? [] {
            let call = self.call(stream)
            if call.endsAtDrain { self.endForDrain(call) }
        }
    }

    /// Time is up for what still runs: the streams that never end by themselves are told, the rest is cut off.
    private func endDrain() {
        self.endEndlessCalls()
        guard self.unwritableSince == nil else { return self.drop("calls outlast the drain") }
        self.shared.logger.debug("Closing a connection: calls outlast the drain", metadata: ["peer": "\(self.peer)"])
        self.close()
    }

    private func endForDrain(_ call: ServerCall) {
        let error = self.shared.configuration.drainError
        self.finish(call, error)
        self.abandonHandler(of: call, error)
    }

    private func sendFinalGoAway() {
        guard case .announced = self.drain else { return }
        self.drain = .final
        self.session?.goAway(HTTP2ErrorCode.noError, self.goodbye.debugData)
        self.setNeedsFlush()
        self.closeIfDrained()
    }

    private func closeIfDrained() {
        guard case .final = self.drain, let session = self.session, session.streams.isEmpty else { return }
        // The last answers may still wait for a client that reads slowly: it comes here again once they have left.
        guard self.isWritable else { return }
        self.isPatient = true
        self.close()
    }

    // MARK: Requests

    private func begin(_ call: ServerCall, _ list: consuming HeaderList, isOversized: Bool) {
        call.machine = ServerStreamMachine(takesManyRequests: false, messageLimit: 0)
        call.begunAt = self.lastRead
        // Reset before we got to look at it: nothing to do, and nothing started (CVE-2023-44487).
        guard !call.isClosed else { return }
        if isOversized {
            return self.finish(
                call,
                RPCError(
                    .resourceExhausted,
                    "the request's headers exceed \(self.shared.http2.headerListBytes) bytes or "
                        + "\(self.shared.http2.headerFields) fields"
                ).counted(as: .headersTooLarge))
        }
        let head: RequestHead
        switch RequestHead.parse(list) {
        case .refuse(let refusal): return self.refuse(call, refusal)
        case .call(let parsed): head = parsed
        }
        call.contentType = head.contentType
        call.listsEncodings = head.namesEncodings
        call.encoder = MessageEncoder(
            compression: head.acceptedCompression,
            automaticBytes: self.shared.configuration.compressedResponseBytes)
        let found = head.list.bytes.withUnsafeBufferPointer { bytes -> Result<Route, RPCError> in
            let path = UnsafeBufferPointer(rebasing: bytes[head.path])
            guard let route = self.shared.router.route(path) else {
                return .failure(self.shared.router.explainUnknown(path))
            }
            return .success(route)
        }
        let route: Route
        switch found {
        case .failure(let error): return self.finish(call, error)
        case .success(let known): route = known
        }
        guard self.runningHandlers < self.shared.configuration.maximumRunningHandlers else {
            call.machine = nil
            self.shared.refusals.report(.tooManyHandlers, peer: self.peer)
            self.session?.reset(call, HTTP2ErrorCode.refusedStream)
            self.setNeedsFlush()
            return
        }
        let metadata = Metadata(head.list)
        if let observer = self.shared.observer {
            observer.callStarted(method: route.path)
            if head.isRetry { observer.callIsRetry(method: route.path) }
            call.observed = (route.path, .now())
        }
        if self.shared.configuration.accessLog != nil {
            call.requestID = metadata.requestID
            call.observed = (route.path, .now())
        }
        var deadline: ContinuousClock.Instant?
        if let nanoseconds = self.timeout(of: head, route) {
            guard nanoseconds > 0 else { return self.finish(call, Self.late) }
            deadline = .now + .nanoseconds(nanoseconds)
            call.timeout = .nanoseconds(nanoseconds)
            self.loop.schedule(call, at: .now() + .nanoseconds(nanoseconds))
        }
        let context = RPCContext(
            method: route.path, metadata: metadata, deadline: deadline, peer: self.peer,
            address: self.address, peerCertificate: self.peerCertificate)
        self.keep(Self.bytesOfCall + head.list.listBytes, of: call)
        call.endsAtDrain = route.method.endsAtDrain
        if call.endsAtDrain, self.isShuttingDown { return self.endForDrain(call) }
        let limit = self.messageLimit(of: route.method)
        switch route.method.handler {
        case .unary, .immediate, .serverStreaming:
            call.machine = ServerStreamMachine(
                takesManyRequests: false, messageLimit: limit, compression: head.compression)
            call.pending = ServerCall.Pending(route: route, context: context)
            call.requestWatch = ProgressWatch(bytes: 0, at: self.lastRead)
        case .clientStreaming(let handler):
            call.machine = ServerStreamMachine(
                takesManyRequests: true, messageLimit: limit, compression: head.compression)
            let messages = RPCMessageStream(pipe: self.makeInboundPipe(call, limit: limit))
            self.runReplying(call, context) { try await handler(messages, $0) }
        case .bidirectional(let handler):
            call.machine = ServerStreamMachine(
                takesManyRequests: true, messageLimit: limit, compression: head.compression)
            let messages = RPCMessageStream(pipe: self.makeInboundPipe(call, limit: limit))
            let writer = self.makeWriter(call)
            self.runStreaming(call, writer) {
                try await handler(messages, try await self.intercepted(context), writer)
            }
        }
    }

    private func messageLimit(of method: RPCMethod) -> Int {
        min(method.maximumMessageBytes ?? .max, self.shared.configuration.maximumMessageBytes)
    }

    private func timeout(of head: RequestHead, _ route: Route) -> Int64? {
        guard route.method.isUnary, let maximum = self.shared.configuration.maximumUnaryTimeout else {
            return head.timeoutNanoseconds
        }
        return min(head.timeoutNanoseconds ?? .max, maximum.clampedNanoseconds)
    }

    private func refuse(_ call: ServerCall, _ refusal: RequestHead.Refusal) {
        guard case .trailersOnly? = call.machine?.sendStatus() else { return }
        call.contentType = refusal.contentType
        call.listsEncodings = refusal.listsEncodings
        let list = ResponseTrailers.list(status: refusal.error, metadata: Metadata())
        switch refusal.httpStatus {
        case .ok: self.session?.respondTrailersOnly(call, Self.constants(call), list)
        case .badRequest: self.session?.respondTrailersOnly(call, .badRequest, list)
        case .methodNotAllowed: self.session?.respondTrailersOnly(call, .methodNotAllowed, list)
        case .unsupportedMediaType:
            // Whoever this is speaks no gRPC and may want to read why it doesn't work.
            self.session?.respondText(
                call, .unsupportedMediaType, list,
                "This is a gRPC server: the content-type must be application/grpc or application/grpc+proto.\n")
        }
        self.setNeedsFlush()
    }

    private func received(_ chunk: ByteBuffer, on call: ServerCall) {
        // Of a call that was reset before we got to look at it nothing matters, nor is anything of it refused.
        guard let session = self.session, !call.isClosed else { return }
        call.requestBytes += chunk.readableBytes
        do throws(RPCError) {
            if let pipe = call.inboundPipe {
                var chunk = chunk
                self.waits(chunk.readableBytes, for: call)
                while let message = try call.machine?.nextMessage(from: &chunk) { pipe.append(message) }
                session.returnCredit(call.machine?.takeCreditOfIncompleteMessage() ?? 0, to: call)
                self.watchMessage(of: call)
            } else {
                self.buffer(chunk.readableBytes, of: call, session)
                try call.machine?.receivedUnaryBytes(chunk)
            }
        } catch {
            self.fail(call, error)
        }
    }

    private func requestEnded(_ call: ServerCall) {
        guard !call.isClosed else { return }
        do throws(RPCError) {
            switch try call.machine?.receivedEnd() {
            case .start(let message):
                if self.mustWait(call) {
                    self.heldBack.append((call, message))
                } else {
                    self.start(call, message)
                }
            case .endMessages: call.inboundPipe?.finish(.success(()))
            case .ignore, nil: break
            }
        } catch {
            self.fail(call, error)
        }
    }

    /// The request broke a rule: the call ends with this status.
    private func fail(_ call: ServerCall, _ error: RPCError) {
        self.finish(call, error)
        self.abandonHandler(of: call, error)
    }

    // MARK: Handlers

    func start(_ call: ServerCall, _ message: MessageAssembler.Message) {
        // Closed or finished meanwhile: no handler for it.
        guard !call.isClosed, call.machine?.isResponseEnded == false, var pending = call.pending.take() else { return }
        self.unbuffer(call)
        self.keep(message.bytes.readableBytes, of: call)
        let method = pending.route.method
        let limit = self.messageLimit(of: method)
        if message.compression != nil { pending.context.requestIsCompressed = true }
        switch method.handler {
        case .unary(let handler):
            self.runReplying(call, pending.context) {
                try await handler(try await self.decoded(message, limit), $0)
            }
        case .immediate(let handler):
            do {
                if message.compression == nil, let context = try self.interceptedAtOnce(pending.context) {
                    return self.replyImmediately(call, context, message.bytes, handler)
                }
            } catch {
                return self.finish(call, RPCError(thrownByHandler: error))
            }
            self.runReplying(call, pending.context) {
                try handler(try await self.decoded(message, limit), $0)
            }
        case .serverStreaming(let handler):
            let writer = self.makeWriter(call)
            if method.staysOnEventLoop {
                self.prepare(call, pending.context, message, limit) { request, context in
                    self.runStreaming(call, writer, on: self.loop) { try await handler(request, context, writer) }
                }
            } else {
                self.runStreaming(call, writer) { [context = pending.context] in
                    let context = try await self.intercepted(context)
                    try await handler(try await self.decoded(message, limit), context, writer)
                }
            }
        case .clientStreaming, .bidirectional: break  // begun with their headers
        }
    }

    /// Inflates elsewhere than on the event loop, and behind the interceptors: a message that costs a lot holds up no
    /// other call, and comes from somebody who may call. Addresses that send many of them take turns.
    @inline(__always)
    private nonisolated func decoded(_ message: MessageAssembler.Message, _ limit: Int) async throws -> ByteBuffer {
        guard message.compression != nil else { return message.bytes }
        return try await self.inflated(message, limit)
    }

    private nonisolated func inflated(_ message: MessageAssembler.Message, _ limit: Int) async throws -> ByteBuffer {
        try await self.shared.inflations.pass(self.address) {
            try await awayFromEventLoop { () throws(RPCError) in try message.decoded(limit: limit, side: "server") }
        }
    }

    private func makeWriter(_ call: ServerCall) -> RPCWriter {
        let pipe = OutboundPipe(limit: self.shared.configuration.streamOutboundBytes)
        pipe.attach(to: call)
        call.outboundPipe = pipe
        call.reportsProgress = true
        return RPCWriter(pipe: pipe, encoder: call.encoder, trailingMetadata: RPCWriter.TrailingMetadata())
    }

    private func makeInboundPipe(_ call: ServerCall, limit: Int) -> InboundPipe {
        let pipe = InboundPipe(limit: limit, side: "server")
        pipe.attach { credit, size in
            self.loop.run {
                self.session?.returnCredit(credit, to: call)
                self.handlerTook(size, of: call)
                self.setNeedsFlush()
            }
        }
        call.inboundPipe = pipe
        return pipe
    }

    private func replyImmediately(
        _ call: ServerCall, _ context: RPCContext, _ message: ByteBuffer, _ handler: RPCMethod.ImmediateHandler
    ) {
        do {
            let reply = try handler(message, context)
            self.handlerReplied(call, reply, call.encoder.encode(reply.message, reply.compression))
        } catch {
            self.finish(call, RPCError(thrownByHandler: error))
        }
    }

    private func runReplying(
        _ call: ServerCall, _ context: RPCContext,
        _ handler: @escaping @Sendable (RPCContext) async throws -> RPCReply
    ) {
        let encoder = call.encoder
        self.handlerBegins(call)
        let task = Task.immediate {
            do {
                let reply = try await handler(try await self.intercepted(context))
                let message: OutboundMessage
                if encoder.compresses(reply.message, reply.compression) {
                    message = await awayFromEventLoop { encoder.encode(reply.message, reply.compression) }
                } else {
                    message = OutboundMessage(bytes: reply.message)
                }
                if self.loop.isCurrent {
                    self.handlerReplied(call, reply, message)
                } else {
                    self.loop.run { self.handlerReplied(call, reply, message) }
                }
            } catch {
                let error = RPCError(thrownByHandler: error)
                self.loop.run { self.handlerEnded(call, error, Metadata()) }
            }
        }
        self.handlerBegan(call, task)
    }

    /// What comes before a handler that stays on the event loop, in a task of its own: this takes as long as the client
    /// makes it, and goes on elsewhere once it waits for anything.
    private func prepare(
        _ call: ServerCall, _ context: RPCContext, _ message: MessageAssembler.Message, _ limit: Int,
        then handle: @escaping @Sendable (ByteBuffer, RPCContext) -> Void
    ) {
        self.handlerBegins(call)
        let task = Task.immediate {
            do {
                let context = try await self.intercepted(context)
                let request = try await self.decoded(message, limit)
                self.loop.run {
                    self.handlerReturned(call)
                    // Nobody may wait for it any more.
                    if !call.isClosed, call.machine?.isResponseEnded == false { handle(request, context) }
                }
            } catch {
                let error = RPCError(thrownByHandler: error)
                self.loop.run { self.handlerEnded(call, error, Metadata()) }
            }
        }
        // The handler's own may have begun already.
        if call.handlerTask == nil { self.handlerBegan(call, task) }
    }

    private func runStreaming(
        _ call: ServerCall, _ writer: RPCWriter, on executor: EventLoopContext? = nil,
        _ handler: @escaping @Sendable () async throws -> Void
    ) {
        self.handlerBegins(call)
        let task = Task.immediate(executorPreference: executor) {
            var status: RPCError?
            do {
                try await handler()
            } catch {
                status = RPCError(thrownByHandler: error)
            }
            let trailing = writer.trailingMetadata.get()
            self.loop.run { [status] in self.handlerEnded(call, status, trailing) }
        }
        self.handlerBegan(call, task)
    }

    /// To be followed by a `Task.immediate`, whose first part, up to its first suspension, runs right here: a handler
    /// that never suspends costs no hop between threads.
    private func handlerBegins(_ call: ServerCall) {
        self.runningHandlers += 1
        call.isHandlerRunning = true
    }

    private func handlerBegan(_ call: ServerCall, _ task: Task<Void, Never>) {
        // It may be over already.
        if call.isHandlerRunning { call.handlerTask = task }
    }

    @inline(__always)
    private nonisolated func intercepted(_ context: RPCContext) async throws -> RPCContext {
        if self.shared.interceptors.isEmpty { return context }
        var context = context
        for interceptor in self.shared.interceptors { try await interceptor.intercept(&context) }
        return context
    }

    /// `nil` if an interceptor has to wait for something.
    private func interceptedAtOnce(_ context: RPCContext) throws -> RPCContext? {
        var context = context
        for interceptor in self.shared.interceptors {
            guard try interceptor.interceptAtOnce(&context) else { return nil }
        }
        return context
    }

    private func handlerReplied(_ call: ServerCall, _ reply: RPCReply, _ message: OutboundMessage) {
        self.handlerReturned(call)
        guard let session = self.session, call.machine?.sendHeaders() == true else { return }
        _ = call.machine?.sendStatus()
        call.outbound.append(message)
        session.budget?.callAnswered()
        call.end = .trailers(
            reply.trailingMetadata.list.isEmpty
                ? nil
                : ResponseTrailers.list(
                    status: nil, metadata: reply.trailingMetadata, limit: session.peerHeaderListBytes))
        session.respond(
            call, Self.constants(call, message.isCompressed ? call.encoder.compression : nil),
            Self.initial(reply.initialMetadata, session))
        self.ended(call, .ok)
        self.setNeedsFlush()
    }

    private func handlerEnded(_ call: ServerCall, _ status: RPCError?, _ trailing: Metadata) {
        self.handlerReturned(call)
        self.sendPiped(call)
        self.finish(call, status, trailing)
        self.release(call, status ?? RPCError(.internal, "the handler has returned"))
    }

    private func handlerReturned(_ call: ServerCall) {
        guard call.isHandlerRunning else { return }
        call.isHandlerRunning = false
        call.handlerTask = nil
        self.runningHandlers -= 1
        self.letGoOfCall(call)
    }

    // MARK: Responses

    private static func constants(_ call: ServerCall, _ compression: RPCCompression? = nil) -> ConstantFields {
        .response(call.contentType, compression, listsEncodings: call.listsEncodings)
    }

    /// Of initial metadata what the peer reads.
    private static func initial(_ metadata: Metadata, _ session: HTTP2Session) -> HeaderList? {
        if metadata.list.isEmpty { return nil }
        return metadata.list.fitting(in: session.peerHeaderListBytes - ResponseTrailers.constantBytes)
    }

    /// Brings what a handler has written to its stream when the connection is flushed: many writes of one tick at once.
    func sendLater(_ call: ServerCall) {
        // Nobody will flush a connection that is lost.
        guard self.session != nil else { return }
        self.unsent.append(call)
        self.setNeedsFlush()
    }

    override func beforeFlush() {
        while let call = self.unsent.popLast() { self.sendPiped(call) }
    }

    /// Brings what a handler has written to its stream.
    func sendPiped(_ call: ServerCall) {
        guard let session = self.session, let pipe = call.outboundPipe, call.machine?.isResponseEnded == false else {
            return
        }
        let content = pipe.take()
        if content.wantsHeaders, call.machine?.sendHeaders() == true {
            call.outbound.append(content.messages)
            // Any of the messages to come may be compressed, and the announcement must be ahead of it.
            session.respond(
                call, Self.constants(call, call.encoder.compression),
                content.initialMetadata.flatMap { Self.initial($0, session) })
        } else {
            session.send(content.messages, on: call)
        }
        self.setNeedsFlush()
    }

    override func streamProgressed(_ stream: HTTP2Stream, _ charge: Int) {
        self.call(stream).outboundPipe?.sent(charge)
    }

    /// Ends the call with a status, behind what was written. The first end counts.
    func finish(_ call: ServerCall, _ status: RPCError?, _ trailing: Metadata = Metadata()) {
        switch call.machine?.sendStatus() {
        case .trailersOnly:
            self.session?.respondTrailersOnly(call, Self.constants(call), self.trailers(status, trailing))
        case .trailers:
            let isBare = status == nil && trailing.list.isEmpty
            self.session?.finish(call, .trailers(isBare ? nil : self.trailers(status, trailing)))
        case .ignore, nil: return
        }
        if !call.isClosed { self.session?.budget?.callAnswered() }
        if let refusal = status?.refusal { self.shared.refusals.report(refusal, peer: self.peer) }
        self.ended(call, status?.code ?? .ok)
        self.setNeedsFlush()
    }

    private func trailers(_ status: RPCError?, _ metadata: Metadata) -> HeaderList {
        ResponseTrailers.list(status: status, metadata: metadata, limit: self.session?.peerHeaderListBytes ?? .max)
    }

    func deadlinePassed(_ call: ServerCall) {
        guard let machine = call.machine, !machine.isResponseEnded else { return }
        if call.outbound.isAtBoundary {
            // Friendlier than the RST_STREAM that the specification asks for, and allowed between two messages.
            self.session?.discard(call)
            self.finish(call, Self.late)
        } else {
            _ = call.machine?.closed()
            self.session?.reset(call, HTTP2ErrorCode.cancel)
            self.ended(call, .deadlineExceeded)
            self.setNeedsFlush()
        }
        self.abandonHandler(of: call, Self.late)
    }

    private static var late: RPCError { RPCError(.deadlineExceeded, "the deadline has passed") }

    /// The stream is gone. If the call was under way, the client cancelled it or its connection was lost.
    private func closed(_ call: ServerCall, _ errorCode: UInt32) {
        let isUnanswered = call.machine?.hasSentHeaders != true
        if call.machine?.closed() == true {
            self.session?.budget?.callWasReset(
                isAnswered: !isUnanswered, age: self.lastRead - call.begunAt, timeout: call.timeout)
            self.ended(call, StatusMapping.code(forReset: errorCode))
            self.abandonHandler(of: call, RPCError(.cancelled, "the call was cancelled"))
        }
        self.release(call, RPCError(.cancelled, "the call is over"))
        self.letGoOfCall(call)
    }

    /// The handler's result no longer matters.
    func abandonHandler(of call: ServerCall, _ error: RPCError) {
        call.pending = nil
        self.release(call, error)
        call.handlerTask?.cancel()
    }

    private func release(_ call: ServerCall, _ error: RPCError) {
        if call.isHeldBack {
            call.isHeldBack = false
            self.heldBack.removeAll { $0.0 === call }
        }
        self.unbuffer(call)
        self.handlerTook(call.waitingBytes, of: call)
        call.outboundPipe?.close(error)
        call.inboundPipe?.finish(.failure(error), discarding: true)
        call.outboundPipe = nil
        call.reportsProgress = false
    }

    func ended(_ call: ServerCall, _ code: RPCCode) {
        if call.timerIndex >= 0 { self.loop.cancelTimer(call) }
        guard let observed = call.observed else { return }
        call.observed = nil
        let duration = Duration.nanoseconds((NIODeadline.now() - observed.since).nanoseconds)
        self.shared.observer?.callEnded(method: observed.method, code: code, duration: duration)
        self.shared.configuration.accessLog?(
            RPCAccess(
                method: observed.method, code: code, duration: duration, peer: self.peer, requestID: call.requestID))
    }
}
