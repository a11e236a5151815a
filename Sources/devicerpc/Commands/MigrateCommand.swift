import ArgumentParser
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
        let check = self.check
        let applied = try await DatabaseWork.run(self.settings, as: self.output) { work in
            if check {
                try await work.database.checkSchema(work.patience)
                return [Int]()
            }
            return try await work.database.migrate(work.patience)
        }
        StandardOutput.write(self.report(applied))
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
