import Logging
import NIOEmbedded
import Testing

@testable import Fuzzing
@testable import RPCTransport

/// A server's connection on a channel in memory, with the client's preface waiting to be read: what the fuzzer drives, for
/// tests of what it found.
enum ServedConnection {
    static func run(
        _ tasks: SerialTasks, _ channel: EmbeddedChannel, _ eventLoop: HarnessEventLoop,
        _ body: (Endpoint, ServerConnection) -> Void
    ) {
        var configuration = RPCServerConfiguration()
        configuration.limits.maximumUnreadBytes = 1000
        configuration.limits.maximumBufferedRequestBytes = 2000
        let gate = Gate()
        let shared = Self.shared(configuration, gate) { _ in }
        let connection = ServerConnection(loop: EventLoopContext(eventLoop: eventLoop), shared: shared)
        let endpoint = Endpoint(
            channel, eventLoop, connection, tasks, gate,
            WireCheck(isServer: true, streamWindow: 65535, connectionWindow: configuration.connectionWindowBytes))
        endpoint.append(Frame.preface + Frame(kind: Frame.Kind.settings).bytes)
        body(endpoint, connection)
        #expect(endpoint.finish(until: { gate.running == 0 }))
        #expect(endpoint.check.broken == [])
    }

    static func shared(
        _ configuration: RPCServerConfiguration, _ gate: Gate, interceptors: [any RPCInterceptor] = [],
        connectionClosed: @escaping @Sendable (ServerConnection) -> Void
    ) -> ServerShared {
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        return ServerShared(
            configuration: configuration, http2: configuration.http2,
            router: Router(services: [FuzzService.make(gate)]), interceptors: interceptors, observer: nil,
            logger: logger, refusals: RefusalReporter(observer: nil, logger: logger), connectionEstablished: { _ in },
            connectionClosed: connectionClosed)
    }

    static func request(_ path: String, on stream: UInt32, _ extra: [UInt8] = []) -> [UInt8] {
        Self.headers(path, on: stream, extra)
            + Frame(
                kind: Frame.Kind.data, flags: Frame.Flag.endStream, stream: stream, payload: [0, 0, 0, 0, 1, 0x41]
            ).bytes
    }

    static func headers(_ path: String, on stream: UInt32, _ extra: [UInt8] = []) -> [UInt8] {
        let block =
            Frame.field(":method", "POST") + Frame.field(":scheme", "http") + Frame.field(":path", path)
            + Frame.field(":authority", "f")
            + Frame.field("content-type", "application/grpc") + Frame.field("te", "trailers") + extra
        return Frame(kind: Frame.Kind.headers, flags: Frame.Flag.endHeaders, stream: stream, payload: block).bytes
    }
}
