import ArgumentParser
import DeviceProvisioning
import FoundationEssentials
import Glibc
import Logging
import Metrics
import SagaRuntime

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Runs the server.",
        usage: "devicerpc serve [--config <file>] [--<setting> <value> ...]",
        discussion: """
            SIGTERM or SIGINT drains and ends with code 0; a second one ends at once with code 130. Code 2: the \
            configuration is wrong; 3: the database can't be reached; 70: another fault.

            \(ConfigurationReference.help())
            """)

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        try await ServerErrors.reported {
            let configuration = try await self.settings.load()
            let registry = MetricsRegistry()
            ProcessMetrics.register(in: registry, version: Version.current)
            MetricsSystem.bootstrap(registry)
            LoggingSystem.bootstrap { label in
                LineLogHandler(label: label, format: configuration.log.format, level: configuration.log.level)
            }
            // Writing to a connection that is gone is an error of that write, not the end.
            signal(SIGPIPE, SIG_IGN)
            let server = Server(
                configuration: configuration, registry: registry, logger: Logger(label: "devicerpc"),
                onReady: { StandardOutput.write(Self.announcement($0, configuration)) })
            try await server.run()
        }
    }

    /// What to do next, to be pasted.
    static func announcement(_ addresses: ServerAddresses, _ configuration: ServerConfiguration) -> String {
        let database = configuration.database.url == nil ? ", embedded PostgreSQL in \(configuration.dataDirectory)" : ""
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

struct MigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate", abstract: "Brings the database's schema up to date, and ends.",
        usage: "devicerpc migrate [--check] [--config <file>] [--<setting> <value> ...]",
        discussion: "Takes the settings of serve. serve does the same at each start.")

    @Flag(help: "Change nothing; code 1 if something is missing.")
    var check = false

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        try await ServerErrors.reported {
            let configuration = try await self.settings.load()
            let logger = Logger(label: "devicerpc") { label in
                LineLogHandler(label: label, format: configuration.log.format, level: configuration.log.level)
            }
            let database = try await ServerDatabase.open(configuration, logger: logger)
            let result: Result<[Int], any Error>
            do {
                if self.check {
                    try await database.checkSchema(logger: logger)
                    result = .success([])
                } else {
                    result = .success(try await database.migrate(logger: logger))
                }
            } catch {
                result = .failure(error)
            }
            await database.close()
            switch result {
            case .success(let applied):
                StandardOutput.write(
                    applied.isEmpty
                        ? "the schema is up to date (version \(ServerDatabase.migrator.newestVersion))\n"
                        : "applied \(applied.map(String.init).joined(separator: ", "))\n")
            case .failure(let failure as Migrator.Failure):
                StandardError.write("error: \(failure)\n")
                throw Exit(.failed)
            case .failure(let error): throw error
            }
        }
    }
}

/// Turns what ends a server into words and an exit code.
enum ServerErrors {
    static func reported(_ body: () async throws -> Void) async throws {
        let status: ExitStatus
        let text: String
        do {
            return try await body()
        } catch let exit as Exit {
            throw exit
        } catch let error as ConfigurationError {
            (status, text) = (.usage, "\(error)")
        } catch let error as ProviderConfigurationError {
            (status, text) = (.usage, "\(ConfigurationError(problems: ["\(error)"]))")
        } catch let error as InstanceLeaseError {
            (status, text) = (.usage, "\(ConfigurationError(problems: ["\(error)"]))")
        } catch let error as PostgresError {
            (status, text) = (.unavailable, "the database: \(error)")
        } catch let error as SagaRuntimeError {
            (status, text) = (.unavailable, "the database: \(error)")
        } catch {
            (status, text) = (.internalError, "\(error)")
        }
        StandardError.write("error: \(text)\n")
        throw Exit(status)
    }
}

/// How this program is called.
enum ProgramPath {
    /// `devicerpc` if that is what a shell would find, else the full path.
    static func toType() -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        guard count > 0 else { return CommandLine.arguments.first ?? "devicerpc" }
        let path = String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        for directory in (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":") {
            guard let found = realpath("\(directory)/devicerpc", nil) else { continue }
            defer { free(found) }
            return String(cString: found) == path ? "devicerpc" : Self.quoted(path)
        }
        return Self.quoted(path)
    }

    private static func quoted(_ path: String) -> String {
        let isPlain = path.utf8.allSatisfy { byte in
            (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                || "/._-+".utf8.contains(byte)
        }
        return isPlain ? path : "'" + String(path.flatMap { $0 == "'" ? "'\\''" : "\($0)" }) + "'"
    }
}
