import ArgumentParser
import SagaRuntime

struct AdoptCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "adopt", abstract: "Lets servers take up the sagas of a database that was restored.",
        usage: "devicerpc adopt --after-restore [--output <format>] [--config <file>] [--<setting> <value> ...]",
        discussion: """
            A server that finds unfinished sagas in a database of another cluster, or in one where no server has renewed its lease for \
            longer than DEVICERPC_RESTORE_SUSPECT, takes none of them up: it may be a copy, and undoing them would destroy what others \
            use. Say this once it is the database to go on with, and no other server works on the original. Takes the settings of serve.
            """)

    @Flag(help: "That is what has happened. Needed, since sagas past their deadlines will be undone.")
    var afterRestore = false

    @Option(help: "text or json.")
    var output: OutputFormat = .text

    @OptionGroup var settings: SettingsOptions

    func validate() throws {
        guard self.afterRestore else {
            throw ValidationError(
                "say --after-restore: sagas that are past their deadlines will be undone, at the providers too")
        }
    }

    func run() async throws {
        let wasHeld = try await DatabaseWork.run(self.settings, as: self.output) { work in
            try await work.withPool { try await RestoredDatabase(pool: $0).accept() }
        }
        StandardOutput.write(
            self.output == .json
                ? "{\"was_held\":\(wasHeld)}\n"
                : wasHeld ? "sagas are taken up from now on\n" : "nothing was held\n")
    }
}
