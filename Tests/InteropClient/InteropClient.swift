import ArgumentParser
import Glibc
import RPCTransport

/// Runs one case of gRPC's interop-test-descriptions.md with our client against any server of grpc.testing.TestService.
@main
struct InteropClient: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "InteropClient", abstract: "Run interop cases against a server of grpc.testing.TestService.",
        discussion: "Ends with 0 if the case holds, 1 if not, and says why on standard error.")

    @Option(help: "The server's host.")
    var host = "127.0.0.1"

    @Option(help: "The server's port.")
    var port: Int

    @Option(
        name: .customLong("case"),
        help: "Which case; may come several times: \(InteropCase.allCases.map(\.rawValue).joined(separator: ", ")).")
    var cases: [InteropCase]

    func run() async throws {
        let client = RPCClient(RPCClientConfiguration(host: self.host, port: self.port))
        var hasFailed = false
        for interopCase in self.cases {
            do {
                try await interopCase.run(with: TestServiceClient(client: client))
                Self.say("\(interopCase.rawValue): ok")
            } catch {
                hasFailed = true
                Self.say("\(interopCase.rawValue): \(error)")
            }
        }
        await client.close()
        if hasFailed { throw ExitCode.failure }
    }

    private static func say(_ text: String) {
        _ = (text + "\n").withCString { write(STDERR_FILENO, $0, strlen($0)) }
    }
}
