import NIOCore
import NIOPosix

/// Where a client's calls meet its connections: one that takes calls, those that are being made, and those that only
/// finish the calls that they have.
///
/// `@unchecked Sendable`: everything is touched on the client's event loop only; other threads hold references and come
/// in through `loop.run`.
final class ClientChannel: TimerNode, @unchecked Sendable {
    let configuration: RPCClientConfiguration
    let loop: EventLoopContext
    let authority: String
    var retryThrottle: RetryThrottle
    /// Twice as long after each server that found it too short.
    private(set) var keepaliveInterval: Duration?

    private var machine: ClientChannelMachine
    private(set) var waiting: CallQueue<ClientCall>
    /// Made with the first connection.
    private var tls: ClientTLSContext?
    /// Which addresses are being tried, while no connection is there.
    private var race: AddressRace<SocketAddress>?
    private var attempts: [ClientConnection] = []
    private(set) var connection: ClientConnection?
    private(set) var retired: [ClientConnection] = []
    /// Makes connections where there is no network; nil once it makes no more.
    var connector: ((ClientChannel) -> ClientConnection?)?
    /// Why there is no connection, if making one has failed.
    private var lastFailure: String?

    var timerIndex = -1
    var timerDeadline = NIODeadline.distantFuture

    init(_ configuration: RPCClientConfiguration, loop: EventLoopContext) {
        self.configuration = configuration
        self.loop = loop
        self.authority = configuration.effectiveAuthority
        self.retryThrottle = RetryThrottle(configuration.retryThrottling)
        self.keepaliveInterval = configuration.keepaliveInterval.map { max($0, configuration.minimumKeepaliveInterval) }
        self.machine = ClientChannelMachine(
            backoff: ExponentialBackoff(
                initial: configuration.initialBackoff, maximum: configuration.maximumBackoff,
                factor: configuration.backoffFactor, jitter: configuration.backoffJitter))
        self.waiting = CallQueue(limit: configuration.maximumWaitingCalls)
    }

    // MARK: Calls

    /// Sends the call, now or when there is a connection with room for it; or fails it.
    func start(_ call: ClientCall) {
        switch self.machine.callArrived(waitsForReady: call.request.options.waitsForReady, now: .now()) {
        case .send:
            if self.waiting.isEmpty, let connection = self.connection, connection.hasRoom {
                connection.begin(call)
            } else {
                self.enqueue(call)
            }
        case .wait: self.enqueue(call)
        case .connect:
            self.enqueue(call)
            self.connect()
        case .waitUntil(let time):
            self.enqueue(call)
            self.loop.schedule(self, at: time)
        case .fail(let error): call.attemptEnded(.failure(error), trailing: nil)
        }
    }

    private func enqueue(_ call: ClientCall) {
        if self.waiting.append(call) {
            call.isWaiting = true
        } else {
            let error = RPCError(
                .resourceExhausted, "\(self.waiting.limit) calls wait for a connection, or for a stream on it, already")
            call.attemptEnded(.failure(error), trailing: nil)
        }
    }

    /// The call is over, wherever it was.
    func ended(_ call: ClientCall) {
        guard call.isWaiting else { return }
        call.isWaiting = false
        self.waiting.remove(call)
    }

    /// What a call that waits is told when its deadline has passed.
    var deadlinePassed: RPCError {
        guard self.connection == nil else {
            return RPCError(.deadlineExceeded, "the deadline has passed before the server took one more call")
        }
        let why = self.lastFailure ?? "no answer from \(self.authority) yet"
        return RPCError(.deadlineExceeded, "the deadline has passed before there was a connection: \(why)")
    }

    /// Sends what waits, as far as there is room.
    func dispatch() {
        while let connection = self.connection, connection.hasRoom, let call = self.waiting.popFirst() {
            call.isWaiting = false
            connection.begin(call)
        }
    }

    /// Fails the calls that don't want to wait until `time`.
    private func failWaiting(_ error: RPCError, until time: NIODeadline) {
        for call in self.waiting.removeAll(where: { !$0.request.options.waitsForReady }) {
            call.isWaiting = false
            call.attemptEnded(.failure(error), trailing: nil)
        }
        if !self.waiting.isEmpty { self.loop.schedule(self, at: time) }
    }

    // MARK: Making a connection

    func timerFired(at now: NIODeadline) {
        if self.race != nil {
            self.tryNextAddress()
        } else if !self.waiting.isEmpty, self.machine.backoffEnded(now: now) {
            self.connect()
        }
    }

    /// What may take its time and therefore happens on another thread.
    private struct Preparations: Sendable {
        var addresses: [SocketAddress]
        var tls: ClientTLSContext?
    }

    private func connect() {
        let (configuration, tls) = (self.configuration, self.tls)
        guard let resolver = configuration.resolver else {
            guard let connection = self.connector?(self) else { return self.connectFailed("there is no network") }
            return self.attempts.append(connection)
        }
        NIOThreadPool.singleton.runIfActive(eventLoop: self.loop.eventLoop) {
            Preparations(
                addresses: try resolver(configuration.host, configuration.port),
                tls: try tls ?? configuration.tls.map { try ClientTLSContext($0) })
        }.whenComplete { self.prepared($0) }
    }

    /// Waits for a connection that somebody else makes.
    func adopt(_ connection: ClientConnection) {
        _ = self.machine.callArrived(waitsForReady: true, now: .now())
        self.attempts.append(connection)
    }

    private func prepared(_ result: Result<Preparations, any Error>) {
        guard self.machine.isConnecting else { return }
        switch result {
        case .success(let preparations):
            self.tls = preparations.tls
            let addresses = preparations.addresses
            self.race = AddressRace(addresses)
            self.tryNextAddress()
        case .failure(let error): self.connectFailed(ConnectFailure.reason(error))
        }
    }

    private func tryNextAddress() {
        guard let address = self.race?.next() else { return }
        self.attempt(address)
    }

    private func attempt(_ address: SocketAddress) {
        let connection = ClientConnection(channel: self)
        let (tls, host, limit) = (self.tls, self.configuration.host, self.configuration.connectTimeout)
        self.attempts.append(connection)
        ClientBootstrap(group: self.loop.eventLoop)
            .connectTimeout(TimeAmount(limit))
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        let handshake = channel.eventLoop.makePromise(of: Void.self)
                        handshake.futureResult.whenFailure { connection.handshakeFailed($0) }
                        try tls.addHandlers(to: channel, host: host, handshake: handshake)
                    }
                    try channel.pipeline.syncOperations.addHandler(connection)
                }
            }
            .connect(to: address)
            .whenFailure { self.closed(connection, ConnectFailure.reason($0, within: limit)) }
        if self.race?.hasMore == true {
            self.loop.schedule(self, at: .now() + TimeAmount(AddressRace<SocketAddress>.stagger))
        }
    }

    private func connectFailed(_ reason: String) {
        self.race = nil
        let error = RPCError(.unavailable, "cannot connect to \(self.authority): \(reason)")
        self.lastFailure = error.message
        guard let until = self.machine.connectFailed(error, now: .now(), random: .random(in: 0...1)) else { return }
        self.failWaiting(error, until: until)
    }

    // MARK: What connections say

    /// The server has sent its SETTINGS.
    func ready(_ connection: ClientConnection) {
        guard let index = self.attempts.firstIndex(where: { $0 === connection }) else { return connection.shutDown() }
        self.attempts.remove(at: index)
        let losers = self.attempts
        self.attempts = []
        self.race = nil
        self.lastFailure = nil
        self.loop.cancelTimer(self)
        for loser in losers { loser.shutDown() }
        guard self.machine.connected() else { return connection.shutDown() }
        self.connection = connection
        self.dispatch()
    }

    /// The connection takes no more calls: GOAWAY, or it is about to be closed.
    func retire(_ connection: ClientConnection, _ reason: String?, wasUseful: Bool) {
        guard connection === self.connection else { return }
        self.connection = nil
        self.retired.append(connection)
        let error = RPCError(
            .unavailable, "cannot connect to \(self.authority): \(reason ?? "the server hung up at once")")
        let action = self.machine.retired(
            error, wasUseful: wasUseful, callsWait: !self.waiting.isEmpty, now: .now(), random: .random(in: 0...1))
        switch action {
        case .none: break
        case .connect: self.connect()
        case .backOff(let until): self.failWaiting(error, until: until)
        }
    }

    /// The connection is gone, or never came to be.
    func closed(_ connection: ClientConnection, _ reason: String?) {
        self.retired.removeAll { $0 === connection }
        guard let index = self.attempts.firstIndex(where: { $0 === connection }) else { return }
        self.attempts.remove(at: index)
        switch self.race?.failed() {
        case .start(let address): self.attempt(address)
        case .allFailed, nil: self.connectFailed(reason ?? "the server hung up")
        case .wait: break
        }
    }

    /// The server counts our PINGs as too many. A server that says so again and again gets none at all, almost.
    func keepaliveWasTooShort() {
        self.keepaliveInterval = self.keepaliveInterval.map { max($0, min($0, Self.longestKeepalive / 2) * 2) }
    }

    /// What servers take from clients without calls (gRFC A8).
    private static let longestKeepalive = Duration.seconds(7200)

    // MARK: The end

    /// Closes every connection. Calls under way and later ones fail.
    func close() -> EventLoopFuture<Void> {
        self.machine.close()
        self.race = nil
        self.loop.cancelTimer(self)
        let connections = self.attempts + self.retired + (self.connection.map { [$0] } ?? [])
        self.attempts = []
        for call in self.waiting.removeAll(where: { _ in true }) {
            call.isWaiting = false
            call.attemptEnded(.failure(ClientChannelMachine.closedError), trailing: nil)
        }
        let closed = connections.compactMap { $0.context?.channel.closeFuture }
        for connection in connections { connection.shutDown() }
        return EventLoopFuture.andAllComplete(closed, on: self.loop.eventLoop)
    }
}
