import ArgumentParser
import SagaRuntime

struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "version", abstract: "Prints the version.")

    @Option(help: "text or json.")
    var output: OutputFormat = .text

    func run() {
        StandardOutput.write(
            self.output == .json ? "{\"version\":\"\(Version.current)\"}\n" : "devicerpc \(Version.current)\n")
    }
}

/// For `./dev lint`, which checks that the document and the table are one.
struct ConfigurationReferenceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "configuration-reference", abstract: "Prints docs/configuration.md.", shouldDisplay: false)

    func run() { StandardOutput.write(ConfigurationReference.markdown()) }
}

/// For the crash tests: the points at which a test build can kill itself.
struct FaultPointsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fault-points", abstract: "Prints the fault points of a test build.", shouldDisplay: false)

    func run() throws {
        #if FAULT_POINTS
            StandardOutput.write(FaultPoint.all.map { $0 + "\n" }.joined())
        #else
            StandardError.write("error: this is not a test build\n")
            throw Exit(.usage)
        #endif
    }
}
