import ArgumentParser
import Logging
import SagaRuntime

struct MigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate", abstract: "Brings the database's schema up to date, and ends.",
        usage: "devicerpc migrate [--check] [--output <format>] [--config <file>] [--<setting> <value> ...]",
        discussion: "Takes the settings of serve. serve does the same at each start.")

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
                StandardOutput.write(self.report(applied))
            case .failure(let failure as Migrator.Failure):
                StandardError.write(ServerErrors.words("\(failure)", .failed, as: self.output))
                throw Exit(.failed)
            case .failure(let error): throw error
            }
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
