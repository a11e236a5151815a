import ArgumentParser
import SagaRuntime

struct RetentionCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retention", abstract: "Removes days of sagas that are over for long, now.",
        usage: "devicerpc retention [--dry-run] [--output <format>] [--config <file>] [--<setting> <value> ...]",
        discussion: """
            Takes the settings of serve, DEVICERPC_RETENTION above all. Servers do the same every day, where their role may; \
            otherwise have this run by the role that owns the tables. A day stays as long as something on it isn't over. Its \
            partitions are detached first, and dropped by whoever comes an hour later or after that. Code 1 if a day stays that \
            could go.
            """)

    @Flag(help: "Change nothing: say what would go.")
    var dryRun = false

    @Option(help: "text or json.")
    var output: OutputFormat = .text

    @OptionGroup var settings: SettingsOptions

    private enum Result: Sendable {
        case off
        case busy
        case plan(Retention.Plan)
        case outcome(Retention.Outcome)
    }

    func run() async throws {
        let dryRun = self.dryRun
        let result = try await DatabaseWork.run(self.settings, as: self.output) { work -> Result in
            let settings = work.configuration.database
            guard settings.retention > .zero else { return .off }
            let logger = work.logger
            return try await work.withPool { pool in
                let retention = Retention(
                    pool: pool, keep: settings.retention, time: settings.retentionTime, logger: logger)
                if dryRun { return .plan(try await retention.plan()) }
                return try await retention.passNow().map { .outcome($0) } ?? .busy
            }
        }
        StandardOutput.write(self.report(result))
        switch result {
        case .busy: throw Exit(.failed)
        case .outcome(let outcome) where !outcome.problems.isEmpty: throw Exit(.failed)
        case .off, .plan, .outcome: break
        }
    }

    private func report(_ result: Result) -> String {
        switch result {
        case .off:
            return self.output == .json ? "{\"keeps\":\"all\"}\n" : "DEVICERPC_RETENTION is 0: all days are kept\n"
        case .busy:
            return self.output == .json
                ? "{\"busy\":true}\n" : "another process is at it; try again in two minutes\n"
        case .plan(let plan):
            return self.lines(
                [
                    ("goes", plan.going), ("stays, not all is over", plan.held), ("is detached", plan.detached),
                    ("is dropped", plan.dropping),
                ], [])
        case .outcome(let outcome):
            return self.lines(
                [
                    ("detached", outcome.detached), ("dropped", outcome.dropped),
                    ("stays, not all is over", outcome.held),
                ],
                outcome.problems)
        }
    }

    private func lines(_ groups: [(what: String, days: [Retention.Day])], _ problems: [String]) -> String {
        if self.output == .json {
            let days = groups.flatMap { group in
                group.days.map {
                    "{\"day\":\"\($0.name)\",\"sagas\":\($0.sagas),\"state\":\(JSONText.quoted(group.what))}"
                }
            }
            let words = problems.map { JSONText.quoted($0) }
            return "{\"days\":[\(days.joined(separator: ","))],\"problems\":[\(words.joined(separator: ","))]}\n"
        }
        let lines = groups.flatMap { group in group.days.map { "\($0.name)  \(group.what)  about \($0.sagas) sagas\n" }
        }
        return (lines.isEmpty && problems.isEmpty ? ["no day is old enough\n"] : lines).joined()
            + problems.map { "\($0)\n" }.joined()
    }
}
