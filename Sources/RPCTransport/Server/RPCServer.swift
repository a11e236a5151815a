public import Logging
public import NIOCore
import NIOPosix
import Synchronization

/// A gRPC server over HTTP/2: over TLS, or cleartext with prior knowledge.
public final class RPCServer: Sendable {
    private enum Phase {
        /// Can transition to: running.
        case idle
        /// Listening. Can transition to: draining, closed.
        case running(any Channel, SocketAddress)
        /// No longer listening; connections finish their calls. Can transition to: closed.
        case draining
        /// No connection is left.
        case closed
    }

    private struct State {
        var phase = Phase.idle
        var connections: [ObjectIdentifier: ServerConnection] = [:]
        /// Of addresses that have connections.
        var accounts: [ClientAddress: ClientAccount] = [:]
        /// Connections whose handshake isn't over.
        var handshakes = 0
        /// Addresses that have such connections.
        var addressesInHandshake = 0
        var waiters: [CheckedContinuation<Void, Never>] = []
        var group: MultiThreadedEventLoopGroup?
        var contexts: [EventLoopContext] = []
        var drainsWhenStarted = false

        mutating func handshakeEnded(_ address: ClientAddress) {
            self.handshakes -= 1
            self.accounts[address]?.handshakes -= 1
            if self.accounts[address]?.handshakes == 0 { self.addressesInHandshake -= 1 }
        }
    }

    private let configuration: RPCServerConfiguration
    private let services: [RPCService]
    private let interceptors: [any RPCInterceptor]
    private let observer: (any RPCObserver)?
    private let logger: Logger
    private let refusals: RefusalReporter
    private let state = Mutex(State())

    public init(
        configuration: RPCServerConfiguration, services: [RPCService], interceptors: [any RPCInterceptor] = [],
        logger: Logger = Logger(label: "rpc"), observer: (any RPCObserver)? = nil
    ) {
        self.configuration = configuration
        self.services = services
        self.interceptors = interceptors
        self.logger = logger
        self.observer = observer
        self.refusals = RefusalReporter(observer: observer, logger: logger)
    }

    /// Begins to listen.
    /// - Returns: the address, with the port that the system chose if none was given.
    /// - Throws: NIO's error if the address cannot be had, `RPCTLSError` if a file of TLS can't be used.
    @discardableResult
    public func start() async throws -> SocketAddress {
        let tls = try self.configuration.tls.map { try ServerTLSContext($0) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: max(1, self.configuration.eventLoops))
        let contexts = Dictionary(
            uniqueKeysWithValues: group.makeIterator().map {
                (ObjectIdentifier($0), EventLoopContext(eventLoop: $0))
            })
        let shared = ServerShared(
            configuration: self.configuration, http2: self.configuration.http2,
            router: Router(services: self.services), interceptors: self.interceptors, observer: self.observer,
            logger: self.logger, refusals: self.refusals,
            connectionEstablished: { connection in self.state.withLock { $0.handshakeEnded(connection.address) } },
            connectionClosed: { self.remove($0) })
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: Int32(clamping: self.configuration.backlog))
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { [refusals] channel in
                channel.eventLoop.makeCompletedFuture {
                    try AcceptFailures.add(to: channel) { refusals.report(.outOfDescriptors, peer: "unknown") }
                }
            }
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            // One read of bounded work, and then the other connections have their turn: what a client sends at once is
            // what the others wait for.
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelInitializer { channel in
                guard let context = contexts[ObjectIdentifier(channel.eventLoop)] else {
                    return channel.eventLoop.makeFailedFuture(ChannelError.inappropriateOperationForState)
                }
                let connection = ServerConnection(loop: context, shared: shared)
                connection.address = ClientAddress(channel.remoteAddress)
                guard self.insert(connection, peer: channel.remoteAddress?.ipAddress ?? "local") else {
                    return channel.close()
                }
                return channel.eventLoop.makeCompletedFuture {
                    do {
                        try channel.syncOptions?.setOption(
                            .recvAllocator, value: ConnectionReads(connection: connection))
                        try tls?.addHandlers(to: channel) { connection.peerCertificate = $0 }
                        try channel.pipeline.syncOperations.addHandler(connection)
                    } catch {
                        self.remove(connection)
                        throw error
                    }
                }
            }
        do {
            let channel = try await bootstrap.bind(host: self.configuration.host, port: self.configuration.port).get()
            guard let address = channel.localAddress else { throw ChannelError.unknownLocalAddress }
            let drains = self.state.withLock { state in
                state.phase = .running(channel, address)
                state.group = group
                state.contexts = Array(contexts.values)
                return state.drainsWhenStarted
            }
            self.logger.info("Listening", metadata: ["address": "\(address)"])
            if let tls { self.keepReloading(tls, on: group.next()) }
            if drains { self.beginGracefulShutdown() }
            return address
        } catch {
            try? await group.shutdownGracefully()
            throw error
        }
    }

    /// Follows the files of TLS for as long as the event loop lives.
    private func keepReloading(_ tls: ServerTLSContext, on eventLoop: any EventLoop) {
        let (logger, observer) = (self.logger, self.observer)
        observer?.certificateLoaded(notAfter: tls.notAfter)
        let interval = TimeAmount(self.configuration.tls?.reloadInterval ?? .seconds(5))
        eventLoop.scheduleRepeatedAsyncTask(initialDelay: interval, delay: interval) { _ in
            NIOThreadPool.singleton.runIfActive(eventLoop: eventLoop) {
                switch tls.reloadIfChanged() {
                case .unchanged: break
                case .reloaded(let notAfter):
                    logger.notice("The certificate was read again", metadata: ["not_after": "\(notAfter)"])
                    observer?.certificateLoaded(notAfter: notAfter)
                case .failed(let error):
                    logger.error("The certificate that was read before stays in use: \(error)")
                    observer?.certificateRejected()
                }
            }
        }
    }

    /// Where the server listens, once it does.
    public var address: SocketAddress? {
        self.state.withLock { state in
            if case .running(_, let address) = state.phase { address } else { nil }
        }
    }

    /// Runs the server until a graceful shutdown is over; starts it if that wasn't done. Cancelling the task closes
    /// all connections at once.
    public func run() async throws {
        let isIdle = self.state.withLock { state in
            if case .idle = state.phase { true } else { false }
        }
        if isIdle { try await self.start() }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isClosed = self.state.withLock { state in
                    if case .closed = state.phase { return true }
                    state.waiters.append(continuation)
                    return false
                }
                if isClosed { continuation.resume() }
            }
        } onCancel: {
            self.beginGracefulShutdown()
            for connection in self.state.withLock({ Array($0.connections.values) }) {
                connection.loop.run { connection.context?.close(promise: nil) }
            }
        }
        let (group, contexts) = self.state.withLock { state in
            defer { state.group = nil }
            return (state.group, state.contexts)
        }
        // Another `run` is at it: what would be asked of its event loops now might never be answered.
        guard let group else { return }
        // A connection that was accepted just before the listener closed is still on its way between two event loops (accept,
        // initialise, register): no loop goes before it has been turned away.
        for _ in 0..<3 {
            for context in contexts { try? await context.eventLoop.submit {}.get() }
        }
        for context in contexts { context.closeMailbox() }
        try? await group.shutdownGracefully()
    }

    /// Stops listening, tells clients to go elsewhere, ends the streams that never end by themselves, and lets all
    /// other calls finish; after `drainTimeout`, what is left is closed. May be called at any time, and twice.
    public func beginGracefulShutdown() {
        enum Action { case none, drain(any Channel, [ServerConnection]) }
        let action = self.state.withLock { state -> Action in
            switch state.phase {
            case .idle:
                state.drainsWhenStarted = true
                return .none
            case .running(let channel, _):
                state.phase = .draining
                return .drain(channel, Array(state.connections.values))
            case .draining, .closed: return .none
            }
        }
        guard case .drain(let channel, let connections) = action else { return }
        for service in self.services { service.onDrain?() }
        channel.close(promise: nil)
        for connection in connections { connection.loop.run { connection.beginDrain() } }
        self.closeIfDrained()
    }

    // MARK: Connections

    /// False if there is no room, or the server is on its way out.
    private func insert(_ connection: ServerConnection, peer: String) -> Bool {
        enum Outcome { case taken, leaving, refused(RPCRefusal) }
        let limits = self.configuration.limits
        let outcome = self.state.withLock { state -> Outcome in
            switch state.phase {
            case .idle, .running: break
            case .draining, .closed: return .leaving
            }
            if state.connections.count >= self.configuration.maximumConnections { return .refused(.tooManyConnections) }
            var account = state.accounts[connection.address] ?? ClientAccount()
            let isFirst = account.handshakes == 0
            // One address can't keep the others out: past the bound, those with less than an equal share still come in.
            let share = limits.maximumHandshakes / (state.addressesInHandshake + (isFirst ? 1 : 0))
            if state.handshakes >= limits.maximumHandshakes, account.handshakes >= max(1, share) {
                return .refused(.tooManyHandshakes)
            }
            if account.connections >= limits.maximumConnectionsPerAddress {
                return .refused(.tooManyConnectionsOfAddress)
            }
            account.connections += 1
            account.handshakes += 1
            state.handshakes += 1
            if isFirst { state.addressesInHandshake += 1 }
            state.accounts[connection.address] = account
            state.connections[ObjectIdentifier(connection)] = connection
            connection.account = account.kept
            return .taken
        }
        switch outcome {
        case .taken: return true
        case .leaving: return false
        case .refused(let refusal):
            self.refusals.report(refusal, peer: peer)
            return false
        }
    }

    private func remove(_ connection: ServerConnection) {
        self.state.withLock { state in
            guard state.connections.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
            if !connection.isEstablished { state.handshakeEnded(connection.address) }
            state.accounts[connection.address]?.connections -= 1
            if state.accounts[connection.address]?.connections == 0 { state.accounts[connection.address] = nil }
        }
        self.closeIfDrained()
    }

    private func closeIfDrained() {
        let waiters = self.state.withLock { state -> [CheckedContinuation<Void, Never>] in
            guard case .draining = state.phase, state.connections.isEmpty else { return [] }
            state.phase = .closed
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }
}
