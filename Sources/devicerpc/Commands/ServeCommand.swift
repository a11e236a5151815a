import ArgumentParser
import Glibc
import Logging
import Metrics
import SagaRuntime

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Runs the server.",
        usage: "devicerpc serve [--config <file>] [--<setting> <value> ...]",
        discussion: """
            SIGTERM or SIGINT drains and ends with code 0; a second one ends at once with code 130. Code 64: the \
            configuration is wrong; 3: the database refuses what a start needs; 70: another fault. A database that is away, \
            starting up, full or read-only is waited for.

            \(ConfigurationReference.help())
            """)

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        // Writing to a connection or pipe that is gone is an error of that write, not the end.
        signal(SIGPIPE, SIG_IGN)
        let output = ServerOutput()
        let result: Result<Void, any Error>
        do {
            result = .success(
                try await ServerErrors.reported(write: output.fail) {
                    try await self.serve(try await self.settings.load(for: .serving), output)
                })
        } catch {
            result = .failure(error)
        }
        await output.flush(within: ServerOutput.patience)
        try result.get()
    }

    private func serve(_ configuration: ServerConfiguration, _ output: ServerOutput) async throws {
        let fileLimit = FileLimit.raise()
        let registry = MetricsRegistry()
        ProcessMetrics.register(in: registry, version: Version.current, fileLimit: fileLimit)
        MetricsSystem.bootstrap(registry)
        output.use(configuration.log.format)
        LoggingSystem.bootstrap { label in
            LineLogHandler(
                label: label, format: configuration.log.format, level: configuration.log.level, write: output.log)
        }
        let dropped = registry.counter("devicerpc_log_lines_dropped_total")
        registry.onScrape { dropped.set(Int64(output.droppedLines)) }
        let causes = LogCauses()
        let server = Server(
            configuration: configuration, registry: registry, logger: causes.thinning(Logger(label: "devicerpc")),
            causes: causes, output: output, fileLimit: fileLimit,
            onReady: { output.announce(Self.announcement($0, configuration)) })
        try await server.run()
    }

    /// What to do next, to be pasted.
    static func announcement(_ addresses: ServerAddresses, _ configuration: ServerConfiguration) -> String {
        let database =
            configuration.database.url == nil ? ", embedded PostgreSQL in \(configuration.dataDirectory)" : ""
        let providers = configuration.provisioning.defaultProvider.map { ", default provider \($0)" } ?? ""
        var reachable = addresses.rpc
        if ["0.0.0.0", "::"].contains(reachable.host) { reachable.host = "127.0.0.1" }
        return """
            devicerpc \(Version.current) is ready: gRPC on \(addresses.rpc), operators on http://\(addresses.operators)\(database)\(providers)
            Create a device, from another terminal:
              \(ProgramPath.toType()) create --watch --server \(reachable) --name my-phone --user me

            """
    }
}
