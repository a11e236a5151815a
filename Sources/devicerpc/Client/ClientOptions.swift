import ArgumentParser
import DeviceRPC
import Foundation
import Glibc
import RPCTransport

/// What every command that calls a server takes.
struct ClientOptions: ParsableArguments {
    @OptionGroup(title: "Server")
    var connection: ConnectionOptions

    @Option(help: "text for people, or json (proto3 JSON).")
    var output: OutputFormat = .text

    @Flag(help: "No colours, as NO_COLOR=1.")
    var noColor = false

    /// The terminal on a stream, as this command sees it.
    func terminal(_ descriptor: Int32 = STDOUT_FILENO) -> Terminal {
        var environment = ProcessInfo.processInfo.environment
        if self.noColor { environment["NO_COLOR"] = "1" }
        return Terminal(descriptor: descriptor, environment: environment)
    }

    /// Runs `body` with a client, and turns what goes wrong into words on standard error and an exit code.
    func run(_ body: (DeviceClient) async throws -> Void) async throws {
        let configuration: ClientConfiguration
        do throws(ConfigurationError) {
            configuration = try await self.connection.load()
        } catch {
            self.report(UsageError("\(error)"))
            throw Exit(.usage)
        }
        if configuration.sendsTokenInCleartext, self.output == .text {
            StandardError.write("warning: the token is sent to \(configuration.server) without TLS (--tls)\n")
        }
        let client = DeviceClient(configuration)
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(client))
        } catch {
            result = .failure(error)
        }
        await client.close()
        switch result {
        case .success: return
        case .failure(let exit as Exit): throw exit
        case .failure(let failure as CallFailure):
            self.report(failure)
            throw Exit(failure.status)
        case .failure(let usage as UsageError):
            self.report(usage)
            throw Exit(.usage)
        case .failure(let other):
            self.report(CallFailure(RPCError(.internal, "\(other)")))
            throw Exit(.internalError)
        }
    }

    func report(_ failure: CallFailure) {
        let text = self.output == .json ? failure.json() : failure.text(style: self.terminal(STDERR_FILENO).style)
        StandardError.write(text)
    }

    func report(_ usage: UsageError) {
        StandardError.write(self.output == .json ? usage.json() : "error: \(usage.message)\n")
    }

    /// A message on standard output: as JSON, or as `text` says.
    func write(_ message: some ProtobufMessage, text: () -> String) {
        switch self.output {
        case .json: StandardOutput.write(message.json(.pretty) + "\n")
        case .text: StandardOutput.write(text())
        }
    }
}

enum OutputFormat: String, CaseIterable, ExpressibleByArgument {
    case text, json

    /// Whether arguments ask for JSON: for what is wrong with the others, when nothing has been made of them.
    static func isJSON(_ arguments: [String]) -> Bool {
        zip(arguments, arguments.dropFirst() + [""]).contains { argument, next in
            argument == "--output=json" || (argument == "--output" && next == "json")
        }
    }
}
