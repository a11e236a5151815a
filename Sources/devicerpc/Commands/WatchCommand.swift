import ArgumentParser
import DeviceRPC

struct WatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch", abstract: "Shows a saga's steps until it is over or parked.",
        discussion: """
            Every event comes once and in order, also when the server goes away in between. One line per event in a \
            pipe, one JSON object per line with --output json.

            \(CommandStatus.help)
            """)

    @Argument(help: "The saga's id.", transform: OptionValues.id("saga_1730188800000_k3x9q2m7ab"))
    var sagaID: String

    @Option(
        name: .customLong("after"), help: "Only events after this sequence.",
        transform: OptionValues.number(0...UInt32.max))
    var afterSequence: UInt32 = 0

    @Option(
        help: ArgumentHelp("How long the server may be away.", valueName: "duration"),
        transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(60))

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            let watcher = SagaWatcher(client: client, options: self.client, patience: self.timeout.duration)
            let status = try await watcher.follow(self.sagaID, after: self.afterSequence)
            if status != .completed { throw Exit(CommandStatus(status)) }
        }
    }
}
