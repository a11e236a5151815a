import Logging
import NIOCore

/// What the connections of a server have in common.
final class ServerShared: Sendable {
    let configuration: RPCServerConfiguration
    let http2: HTTP2Configuration
    let router: Router
    let interceptors: [any RPCInterceptor]
    let observer: (any RPCObserver)?
    let logger: Logger
    let refusals: RefusalReporter
    let kept: KeptBytes
    /// Messages are inflated by half of the cores at most, which leaves the rest to calls that cost less.
    let inflations: FairGate<ClientAddress>
    /// These are called on the connection's event loop.
    let connectionEstablished: @Sendable (ServerConnection) -> Void
    let connectionClosed: @Sendable (ServerConnection) -> Void

    init(
        configuration: RPCServerConfiguration, http2: HTTP2Configuration, router: Router,
        interceptors: [any RPCInterceptor], observer: (any RPCObserver)?, logger: Logger, refusals: RefusalReporter,
        connectionEstablished: @escaping @Sendable (ServerConnection) -> Void,
        connectionClosed: @escaping @Sendable (ServerConnection) -> Void
    ) {
        self.configuration = configuration
        self.http2 = http2
        self.router = router
        self.interceptors = interceptors
        self.observer = observer
        self.logger = logger
        self.refusals = refusals
        self.kept = KeptBytes(limit: configuration.limits.maximumKeptBytes)
        self.inflations = FairGate(permits: System.coreCount / 2) { observer?.refused(.tooManyInflations) }
        self.connectionEstablished = connectionEstablished
        self.connectionClosed = connectionClosed
    }
}
