import ArgumentParser

/// The one binary: the server, the clients and the tools of operators.
@main
struct DeviceRPCCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "devicerpc", abstract: "Creates and deletes cloud phones as durable sagas, over gRPC.",
        discussion: CommandStatus.help, version: Version.current,
        subcommands: [
            ServeCommand.self, CreateCommand.self, GetCommand.self, WatchCommand.self, DeleteCommand.self,
            CancelCommand.self, StartCommand.self, StopCommand.self, RestartCommand.self, BatchCommand.self,
            ListCommand.self, SagasCommand.self, CompensateCommand.self, ResumeCommand.self, PortsCommand.self,
            MigrateCommand.self, RetentionCommand.self, AdoptCommand.self, BenchCommand.self, VersionCommand.self,
            ConfigurationReferenceCommand.self, FaultPointsCommand.self,
        ])

    /// Parses and runs, with exit codes of our own (`CommandStatus`).
    static func main() async {
        StandardDescriptors.ensureOpen()
        do {
            var command = try Self.parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let exit as Exit {
            Self.exit(withError: ExitCode(exit.status.rawValue))
        } catch {
            let code = Self.exitCode(for: error)
            if code.isSuccess || code != .validationFailure { Self.exit(withError: error) }
            StandardError.write(
                OutputFormat.isJSON(CommandLine.arguments)
                    ? UsageError(Self.message(for: error)).json() : Self.fullMessage(for: error) + "\n")
            Self.exit(withError: ExitCode(CommandStatus.usage.rawValue))
        }
    }
}
