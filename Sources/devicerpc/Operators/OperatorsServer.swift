import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import ServiceLifecycle

/// The operators' port: `/metrics`, `/healthz` and `/readyz` over HTTP/1.1.
struct OperatorsServer: Service {
    private let application: Application<RouterResponder<BasicRequestContext>>
    private let address: ListenAddress
    private let bound: AsyncStream<ListenAddress>

    /// - Parameters:
    ///   - readiness: asked at each `/readyz`; must not wait long.
    init(
        address: ListenAddress, registry: MetricsRegistry, logger: Logger,
        readiness: @escaping @Sendable () async -> Readiness
    ) {
        let (bound, continuation) = AsyncStream<ListenAddress>.makeStream()
        self.bound = bound
        self.address = address
        let router = Router()
        router.get("/metrics") { _, _ in
            Self.response(.ok, Exposition.contentType, registry.expose())
        }
        router.get("/healthz") { _, _ in
            Self.response(.ok, "text/plain; charset=utf-8", "ok\n")
        }
        router.get("/readyz") { _, _ in
            let readiness = await readiness()
            return Self.response(
                readiness.isReady ? .ok : .serviceUnavailable, "application/json", readiness.json())
        }
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let closed = registry.counter("operators_connections_closed_total")
        let connections = OperatorConnections(maximum: DescriptorBudget.operatorConnections) {
            closed.increment(by: Int64(1))
        }
        self.application = Application(
            router: router, server: .http1(configuration: .init(additionalChannelHandlers: [connections.handler()])),
            configuration: ApplicationConfiguration(address: .hostname(address.host, port: address.port)),
            onServerRunning: { channel in
                continuation.yield(ListenAddress(host: address.host, port: channel.localAddress?.port ?? address.port))
                continuation.finish()
            },
            logger: quiet)
    }

    func run() async throws {
        do {
            try await self.application.run()
        } catch let error as IOError {
            throw ConfigurationError(
                problems: [
                    "\(Settings.opsListen.description.environmentName): can't listen on \(self.address): \(error)"
                ])
        }
    }

    /// The address that was bound, once it is. To be asked once.
    func boundAddress() async -> ListenAddress {
        for await address in self.bound { return address }
        return self.address
    }

    private static func response(_ status: HTTPResponse.Status, _ contentType: String, _ body: String) -> Response {
        Response(
            status: status, headers: [.contentType: contentType],
            body: ResponseBody(byteBuffer: ByteBuffer(string: body)))
    }
}
