public import NIOCore
import NIOPosix
import Synchronization

/// A gRPC client over HTTP/2, cleartext with prior knowledge: one connection, made when it is needed and made anew when
/// it is lost.
public final class RPCClient: Sendable {
    private enum Phase {
        /// No connection, and none asked for. Can transition to: connecting, closed.
        case idle
        /// Can transition to: ready, failed, closed.
        case connecting
        /// Can transition to: idle (GOAWAY, lost), closed.
        case ready(ClientConnection)
        /// Calls fail with this error until then. Can transition to: connecting, closed.
        case failed(RPCError, until: NIODeadline)
        case closed
    }

    private struct Waiter {
        var id: Int
        var waitsForReady: Bool
        var continuation: CheckedContinuation<ClientConnection, any Error>
    }

    private struct State {
        var phase = Phase.idle
        /// Attempts that failed since the last success.
        var failures = 0
        var waiters: [Waiter] = []
        var nextWaiter = 0
    }

    private let configuration: RPCClientConfiguration
    private let loop: EventLoopContext
    private let authority: String
    private let state = Mutex(State())

    public init(_ configuration: RPCClientConfiguration) {
        self.configuration = configuration
        self.loop = EventLoopContext(
            eventLoop: configuration.eventLoop ?? MultiThreadedEventLoopGroup.singleton.any())
        let host = configuration.host.contains(":") ? "[\(configuration.host)]" : configuration.host
        self.authority = configuration.authority ?? "\(host):\(configuration.port)"
    }

    deinit {
        if case .ready(let connection) = self.state.withLock({ $0.phase }) {
            connection.loop.run { connection.shutDown() }
        }
    }

    /// Closes the connection. Calls under way and later ones fail.
    public func close() async {
        let (connection, waiters) = self.state.withLock { state -> (ClientConnection?, [Waiter]) in
            defer {
                state.phase = .closed
                state.waiters = []
            }
            if case .ready(let connection) = state.phase { return (connection, state.waiters) }
            return (nil, state.waiters)
        }
        for waiter in waiters { waiter.continuation.resume(throwing: Self.closedError) }
        guard let connection else { return }
        let closed = self.loop.eventLoop.makePromise(of: Void.self)
        connection.loop.run {
            guard let context = connection.context else { return closed.succeed() }
            context.channel.closeFuture.cascade(to: closed)
            connection.shutDown()
        }
        try? await closed.futureResult.get()
    }

    // MARK: Calls

    /// One message out, one in.
    /// - Parameter path: `/package.Service/Method`
    /// - Throws: the call's status, unless it is OK. A call that the server refused without looking at it (GOAWAY,
    ///   REFUSED_STREAM) is sent again, twice at most.
    public func unary(
        _ path: String, _ message: ByteBuffer, options: RPCCallOptions = RPCCallOptions()
    ) async throws(RPCError) -> RPCResponse {
        let deadline = Self.deadline(options)
        var attempt = 0
        while true {
            attempt += 1
            let call = try await self.start(path, message, options, deadline, streams: false, expectsOneResponse: true)
            do throws(RPCError) {
                return try await Self.response(of: call)
            } catch {
                guard error.isRefused, attempt < 3 else { throw error }
            }
        }
    }

    /// One message out, any number in.
    public func serverStreaming(
        _ path: String, _ message: ByteBuffer, options: RPCCallOptions = RPCCallOptions()
    ) async throws(RPCError) -> RPCResponseStream {
        let call = try await self.start(
            path, message, options, Self.deadline(options), streams: false, expectsOneResponse: false)
        return RPCResponseStream(call: call)
    }

    /// Any number of messages out, one in.
    public func clientStreaming(
        _ path: String, options: RPCCallOptions = RPCCallOptions()
    ) async throws(RPCError) -> RPCClientStreamingCall {
        let call = try await self.start(
            path, nil, options, Self.deadline(options), streams: true, expectsOneResponse: true)
        return RPCClientStreamingCall(
            requests: RPCRequestWriter(call: call, encoder: MessageEncoder(options.compression)), call: call)
    }

    /// Any number of messages both ways.
    public func bidirectional(
        _ path: String, options: RPCCallOptions = RPCCallOptions()
    ) async throws(RPCError) -> RPCBidirectionalCall {
        let call = try await self.start(
            path, nil, options, Self.deadline(options), streams: true, expectsOneResponse: false)
        return RPCBidirectionalCall(
            requests: RPCRequestWriter(call: call, encoder: MessageEncoder(options.compression)),
            responses: RPCResponseStream(call: call))
    }

    private static func deadline(_ options: RPCCallOptions) -> NIODeadline? {
        options.timeout.map { .now() + .nanoseconds(min($0.clampedNanoseconds, GRPCTimeout.maximumNanoseconds)) }
    }

    private func start(
        _ path: String, _ message: ByteBuffer?, _ options: RPCCallOptions, _ deadline: NIODeadline?, streams: Bool,
        expectsOneResponse: Bool
    ) async throws(RPCError) -> ClientCall {
        let connection = try await self.connection(waitsForReady: options.waitsForReady, deadline: deadline)
        var head = HeaderList()
        head.append(":path", path.utf8)
        head.append(":authority", self.authority.utf8)
        head.append("te", "trailers")
        head.append("content-type", "application/grpc")
        if !self.configuration.userAgent.isEmpty { head.append("user-agent", self.configuration.userAgent.utf8) }
        if let deadline {
            let left = (deadline - .now()).nanoseconds
            guard left > 0 else { throw RPCError(.deadlineExceeded, "the deadline has passed") }
            head.append("grpc-timeout", GRPCTimeout.encode(nanoseconds: left).utf8)
        }
        head.append("grpc-accept-encoding", RPCCompression.accepted)
        if let compression = options.compression { head.append("grpc-encoding", compression.rawValue.utf8) }
        head.append(contentsOf: options.metadata.list)
        let message = message.map { MessageEncoder(options.compression).encode($0, .automatic) }
        let call = ClientCall(
            connection: connection,
            machine: ClientStreamMachine(
                expectsOneResponse: expectsOneResponse, messageLimit: self.configuration.maximumMessageBytes),
            messageLimit: self.configuration.maximumMessageBytes,
            outboundPipe: streams ? OutboundPipe(limit: self.configuration.streamOutboundBytes) : nil)
        connection.loop.run { [head] in connection.start(call, head, message: message, deadline: deadline) }
        return call
    }

    static func response(of call: ClientCall) async throws(RPCError) -> RPCResponse {
        let messages: [(bytes: ByteBuffer, isCompressed: Bool)]
        do throws(RPCError) {
            messages = try await call.inboundPipe.all()
        } catch {
            if error.code == .cancelled { call.cancel() }
            throw error
        }
        guard let message = messages.first else {
            throw RPCError(.unimplemented, "one response was expected, there was none")
        }
        return call.response.withLock {
            RPCResponse(
                message: message.bytes, initialMetadata: $0.initialMetadata ?? Metadata(),
                trailingMetadata: $0.trailingMetadata ?? Metadata(), isCompressed: message.isCompressed)
        }
    }

    // MARK: The connection

    private static var closedError: RPCError { RPCError(.unavailable, "the client was closed") }

    private func connection(waitsForReady: Bool, deadline: NIODeadline?) async throws(RPCError) -> ClientConnection {
        let ready = self.state.withLock { state -> ClientConnection? in
            if case .ready(let connection) = state.phase { connection } else { nil }
        }
        if let ready { return ready }
        let id = self.state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        let timer = deadline.map { deadline in
            self.loop.eventLoop.scheduleTask(deadline: deadline) {
                self.failWaiter(id, RPCError(.deadlineExceeded, "the deadline has passed without a connection"))
            }
        }
        defer { timer?.cancel() }
        do {
            return try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { continuation in
                    self.wait(Waiter(id: id, waitsForReady: waitsForReady, continuation: continuation))
                }
            } onCancel: {
                self.failWaiter(id, RPCError(.cancelled, "the call was cancelled"))
            }
        } catch {
            throw RPCError(thrownInCall: error)
        }
    }

    private func wait(_ waiter: Waiter) {
        enum Action { case resume(ClientConnection), fail(RPCError), connect, retry(NIODeadline), none }
        let isCancelled = Task.isCancelled
        let action = self.state.withLock { state -> Action in
            if isCancelled { return .fail(RPCError(.cancelled, "the call was cancelled")) }
            switch state.phase {
            case .ready(let connection): return .resume(connection)
            case .closed: return .fail(Self.closedError)
            case .idle:
                state.phase = .connecting
                state.waiters.append(waiter)
                return .connect
            case .connecting:
                state.waiters.append(waiter)
                return .none
            case .failed(let error, let until):
                if until > .now() {
                    guard waiter.waitsForReady else { return .fail(error) }
                    state.waiters.append(waiter)
                    return .retry(until)
                }
                state.phase = .connecting
                state.waiters.append(waiter)
                return .connect
            }
        }
        switch action {
        case .resume(let connection): waiter.continuation.resume(returning: connection)
        case .fail(let error): waiter.continuation.resume(throwing: error)
        case .connect: self.connect()
        case .retry(let until): self.retry(at: until)
        case .none: break
        }
    }

    private func failWaiter(_ id: Int, _ error: RPCError) {
        let waiter = self.state.withLock { state -> Waiter? in
            guard let index = state.waiters.firstIndex(where: { $0.id == id }) else { return nil }
            return state.waiters.remove(at: index)
        }
        waiter?.continuation.resume(throwing: error)
    }

    private func connect() {
        let connection = ClientConnection(loop: self.loop, configuration: self.configuration) { [weak self] in
            self?.retire($0)
        }
        ClientBootstrap(group: self.loop.eventLoop)
            .connectTimeout(TimeAmount(self.configuration.connectTimeout))
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(connection) }
            }
            .connect(host: self.configuration.host, port: self.configuration.port)
            .whenComplete { [weak self] result in
                guard let self else { return connection.shutDown() }
                switch result {
                case .success: self.connected(connection)
                case .failure(let error): self.connectFailed(error)
                }
            }
    }

    private func connected(_ connection: ClientConnection) {
        let waiters = self.state.withLock { state -> [Waiter]? in
            guard case .connecting = state.phase else { return nil }
            state.phase = .ready(connection)
            state.failures = 0
            defer { state.waiters = [] }
            return state.waiters
        }
        guard let waiters else { return connection.shutDown() }
        for waiter in waiters { waiter.continuation.resume(returning: connection) }
    }

    private func connectFailed(_ cause: any Error) {
        let error = RPCError(.unavailable, "cannot connect to \(self.authority): \(cause)")
        let (failed, retriesAt) = self.state.withLock { state -> ([Waiter], NIODeadline?) in
            guard case .connecting = state.phase else { return ([], nil) }
            let until = NIODeadline.now() + .nanoseconds(self.backoff(after: state.failures))
            state.failures += 1
            state.phase = .failed(error, until: until)
            let failed = state.waiters.filter { !$0.waitsForReady }
            state.waiters.removeAll { !$0.waitsForReady }
            return (failed, state.waiters.isEmpty ? nil : until)
        }
        for waiter in failed { waiter.continuation.resume(throwing: error) }
        if let retriesAt { self.retry(at: retriesAt) }
    }

    private func retry(at time: NIODeadline) {
        self.loop.eventLoop.scheduleTask(deadline: time) { [weak self] in self?.retryForWaiters() }
    }

    private func retryForWaiters() {
        enum Action { case connect, later(NIODeadline), none }
        let action = self.state.withLock { state -> Action in
            guard case .failed(_, let until) = state.phase, !state.waiters.isEmpty else { return .none }
            if until > .now() { return .later(until) }
            state.phase = .connecting
            return .connect
        }
        switch action {
        case .connect: self.connect()
        case .later(let until): self.retry(at: until)
        case .none: break
        }
    }

    private func backoff(after failures: Int) -> Int64 {
        var seconds = Double(self.configuration.initialBackoff.clampedNanoseconds) / 1e9
        let maximum = Double(self.configuration.maximumBackoff.clampedNanoseconds) / 1e9
        for _ in 0..<min(failures, 64) { seconds *= self.configuration.backoffFactor }
        return Int64(min(seconds, maximum) * Double.random(in: 0.8...1.2) * 1e9)
    }

    private func retire(_ connection: ClientConnection) {
        self.state.withLock { state in
            guard case .ready(let current) = state.phase, current === connection else { return }
            state.phase = .idle
        }
    }
}
