import ArgumentParser
import Logging
import SagaRuntime

struct MigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate", abstract: "Brings the database's schema up to date, and ends.",
        usage: "devicerpc migrate [--check] [--output <format>] [--config <file>] [--<setting> <value> ...]",
        discussion: """
            Takes the settings of serve. serve does the same at each start, where its role may. A database that is away, \
            starting up, full or read-only is waited for, for a minute; then code 3.
            """)

    @Flag(help: "Change nothing; code 1 if something is missing.")
    var check = false

    @Option(help: "text or json.")
    var output: OutputFormat = .text

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        try await ServerErrors.reported(as: self.output) {
            let configuration = try await self.settings.load(for: .migrating)
            let logger = Logger(label: "devicerpc") { label in
                LineLogHandler(label: label, format: configuration.log.format, level: configuration.log.level) {
                    line, _ in StandardError.write(line)
                }
            }
            let result = await self.run(configuration, logger)
            switch result {
            case .success(let applied):
                StandardOutput.write(self.report(applied))
            case .failure(let failure as Migrator.Failure):
                StandardError.write(ServerErrors.words("\(failure)", .failed, as: self.output))
                throw Exit(.failed)
            case .failure(is CancellationError): throw Exit(.interrupted)
            case .failure(let error): throw error
            }
        }
    }

    /// Stops what it has started also when it is interrupted.
    private func run(_ configuration: ServerConfiguration, _ logger: Logger) async -> Result<[Int], any Error> {
        let signals = ShutdownSignals { words, level in logger.log(level: level, "\(words)") }
        let patience = DatabasePatience(limit: ServerDatabase.commandPatience, logger: LogCauses().thinning(logger))
        let check = self.check
        do {
            return .success(
                try await signals.interrupting {
                    var database = try await ServerDatabase.open(configuration, logger: logger)
                    let result: Result<[Int], any Error>
                    do {
                        if check {
                            try await database.checkSchema(patience)
                            result = .success([])
                        } else {
                            result = .success(try await database.migrate(patience))
                        }
                    } catch {
                        result = .failure(error)
                    }
                    await database.close()
                    return try result.get()
                })
        } catch {
            return .failure(error)
        }
    }

    private func report(_ applied: [Int]) -> String {
        let newest = ServerDatabase.migrator.newestVersion
        let numbers = applied.map(String.init)
        return switch self.output {
        case .json: "{\"version\":\(newest),\"applied\":[\(numbers.joined(separator: ","))]}\n"
        case .text where applied.isEmpty: "the schema is up to date (version \(newest))\n"
        case .text: "applied \(numbers.joined(separator: ", "))\n"
        }
    }
}
