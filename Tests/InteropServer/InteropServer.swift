import ArgumentParser
import Dispatch
import Glibc
import Logging
import NIOCore
import RPCTransport

/// A server for any gRPC interop client; docs/interop.md tells which ones the tests run against it.
@main
struct InteropServer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "InteropServer",
        abstract: "Serve grpc.testing.TestService and health, for interop clients.",
        discussion: "Prints `listening on PORT` once it does. SIGTERM and SIGINT drain it.")

    @Option(help: "The address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "The port to listen on; 0 takes a free one.")
    var port = 0

    @Option(help: "Threads that serve connections.")
    var eventLoops = 1

    @Option(help: "The largest request message, in bytes.")
    var maximumMessageBytes: Int?

    @Option(help: "The largest header block, in bytes as RFC 9113 counts them.")
    var maximumHeaderListBytes: Int?

    func run() async throws {
        LoggingSystem.bootstrap(StreamLogHandler.standardError)
        var configuration = RPCServerConfiguration(host: self.host, port: self.port)
        configuration.eventLoops = self.eventLoops
        if let limit = self.maximumMessageBytes { configuration.maximumMessageBytes = limit }
        if let limit = self.maximumHeaderListBytes { configuration.maximumHeaderListBytes = limit }

        let health = HealthService(["": .serving, "grpc.testing.TestService": .serving])
        let server = RPCServer(configuration: configuration, services: [TestService().service, health.service])
        let signals = [SIGTERM, SIGINT].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler { server.beginGracefulShutdown() }
            source.activate()
            return source
        }
        defer { for source in signals { source.cancel() } }

        let address = try await server.start()
        // Not through print, which would keep it until its buffer is full.
        _ = "listening on \(address.port ?? 0)\n".withCString { write(STDOUT_FILENO, $0, strlen($0)) }
        try await server.run()
    }
}
