import ArgumentParser
import Foundation
import Glibc

/// The settings of the server on the command line: flags by the table of settings, and a file.
struct SettingsOptions: ParsableArguments {
    @Option(help: ArgumentHelp("A YAML or JSON file with settings; DEVICERPC_CONFIG names one too.", valueName: "file"))
    var config: String?

    @Argument(
        parsing: .allUnrecognized, help: ArgumentHelp("Settings as --flag value; see below.", visibility: .hidden))
    var settings: [String] = []

    /// - Throws: `ConfigurationError` with everything that is wrong.
    func load(for purpose: ServerConfiguration.Purpose) async throws(ConfigurationError) -> ServerConfiguration {
        let environment = ProcessInfo.processInfo.environment
        return try await ServerConfiguration.load(
            flags: try CommandLineFlags.parse(self.settings), environment: environment,
            filePath: self.config ?? environment[SettingsTable.server.fileVariable].flatMap { $0.isEmpty ? nil : $0 },
            homeDirectory: environment["HOME"] ?? "/", isRoot: geteuid() == 0, for: purpose)
    }
}
