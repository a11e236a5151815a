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

    @Option(help: "Milliseconds without a byte after which a client is sent a PING.")
    var keepaliveInterval: Int?

    @Option(help: "Milliseconds that it has to answer.")
    var keepaliveTimeout: Int?

    @Option(help: "Milliseconds that must lie between two PINGs of a client.")
    var minimumPingInterval: Int?

    @Flag(help: "Lets clients without calls send a PING every two hours only.")
    var forbidPingsWithoutCalls = false

    @Option(help: "Milliseconds without a call after which a connection ends.")
    var maximumConnectionIdle: Int?

    @Option(help: "Milliseconds, a tenth more or less, after which a connection ends with its last call.")
    var maximumConnectionAge: Int?

    @Option(help: "Milliseconds after that, after which it ends whatever its calls do.")
    var maximumConnectionAgeGrace: Int?

    @Option(help: "Milliseconds that calls may go on for once the server drains.")
    var drainTimeout: Int?

    @Option(help: "Milliseconds that a call with one answer may take.")
    var maximumUnaryTimeout: Int?

    @Option(help: "The file of the server's certificate chain, PEM; without it the server speaks cleartext.")
    var tlsCert: String?

    @Option(help: "The file of the certificate's key, PEM.")
    var tlsKey: String?

    @Option(help: "The file of the authorities whose certificates clients must show, PEM; without it they need none.")
    var tlsClientCA: String?

    func validate() throws {
        guard (self.tlsCert == nil) == (self.tlsKey == nil), self.tlsCert != nil || self.tlsClientCA == nil else {
            throw ValidationError("TLS takes both --tls-cert and --tls-key.")
        }
    }

    func run() async throws {
        LoggingSystem.bootstrap(StreamLogHandler.standardError)
        var configuration = RPCServerConfiguration(host: self.host, port: self.port)
        configuration.eventLoops = self.eventLoops
        if let limit = self.maximumMessageBytes { configuration.maximumMessageBytes = limit }
        if let limit = self.maximumHeaderListBytes { configuration.maximumHeaderListBytes = limit }
        if let time = self.keepaliveInterval { configuration.keepaliveInterval = .milliseconds(time) }
        if let time = self.keepaliveTimeout { configuration.keepaliveTimeout = .milliseconds(time) }
        if let time = self.minimumPingInterval { configuration.minimumPingInterval = .milliseconds(time) }
        configuration.permitsPingsWithoutCalls = !self.forbidPingsWithoutCalls
        configuration.maximumConnectionIdle = self.maximumConnectionIdle.map { .milliseconds($0) }
        configuration.maximumConnectionAge = self.maximumConnectionAge.map { .milliseconds($0) }
        configuration.maximumConnectionAgeGrace = self.maximumConnectionAgeGrace.map { .milliseconds($0) }
        if let time = self.drainTimeout { configuration.drainTimeout = .milliseconds(time) }
        configuration.maximumUnaryTimeout = self.maximumUnaryTimeout.map { .milliseconds($0) }
        if let certificate = self.tlsCert, let key = self.tlsKey {
            configuration.tls = RPCServerTLS(
                certificateFile: certificate, keyFile: key, clientAuthorityFile: self.tlsClientCA)
        }

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
