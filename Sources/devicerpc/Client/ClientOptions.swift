import ArgumentParser
import DeviceRPC
import Foundation
import Glibc

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
            StandardError.write("error: \(error)\n")
            throw Exit(.usage)
        }
        if configuration.sendsTokenInCleartext {
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
            StandardError.write("error: \(usage.message)\n")
            throw Exit(.usage)
        case .failure(let other):
            StandardError.write("error: \(other)\n")
            throw Exit(.internalError)
        }
    }

    func report(_ failure: CallFailure) {
        let text = self.output == .json ? failure.json() : failure.text(style: self.terminal(STDERR_FILENO).style)
        StandardError.write(text)
    }

    /// A message on standard output: as JSON, or as `text` says.
    func write(_ message: some ProtobufMessage, text: () -> String) {
        switch self.output {
        case .json: StandardOutput.write(message.json(.pretty) + "\n")
        case .text: StandardOutput.write(text())
        }
    }
}

enum OutputFormat: String, CaseIterable, ExpressibleByArgument { case text, json }

/// The arguments are wrong in a way that only a look at files or at several of them shows.
struct UsageError: Error {
    let message: String

    init(_ message: String) { self.message = message }
}

/// A duration on the command line, e.g. `30s`.
struct DurationArgument: ExpressibleByArgument {
    let duration: Duration

    init(_ duration: Duration) { self.duration = duration }

    init?(argument: String) {
        guard let duration = DurationText.parse(argument) else { return nil }
        self.duration = duration
    }

    var defaultValueDescription: String { DurationText.render(self.duration) }
}

/// `key=value` on the command line.
struct KeyValueArgument: ExpressibleByArgument {
    let key: String
    let value: String

    init?(argument: String) {
        let sides = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard sides.count == 2, !sides[0].isEmpty else { return nil }
        self.key = sides[0]
        self.value = sides[1]
    }
}
