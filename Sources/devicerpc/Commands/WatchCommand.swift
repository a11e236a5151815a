import ArgumentParser
import DeviceRPC

struct WatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch", abstract: "Shows a saga's steps, or a batch, until it is over or parked.",
        discussion: """
            Every event comes once and in order, also when the server goes away in between. One line per event in a \
            pipe, one JSON object per line with --output json.

            Of a batch, how many there are of each status, and a line for each saga that is over or parked; it ends when \
            none moves any more: devicerpc watch --batch demo

            \(CommandStatus.help)
            """)

    @Argument(help: "The saga's id.", transform: OptionValues.id("saga_1730188800000_k3x9q2m7ab"))
    var sagaID: String?

    @Option(
        name: .customLong("batch"), help: "All sagas of a batch instead of one.", transform: OptionValues.id("demo"))
    var batchID: String?

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

    func validate() throws {
        if (self.sagaID == nil) == (self.batchID == nil) {
            throw ValidationError("Give either a saga's id or --batch.")
        }
        if self.batchID != nil, self.afterSequence > 0 { throw ValidationError("--after is for one saga.") }
    }

    func run() async throws {
        try await self.client.run { client in
            if let batchID = self.batchID {
                let watcher = BatchWatcher(client: client, options: self.client, patience: self.timeout.duration)
                let status = try await watcher.follow(batchID)
                if status != .success { throw Exit(status) }
                return
            }
            guard let sagaID = self.sagaID else { return }
            let watcher = SagaWatcher(client: client, options: self.client, patience: self.timeout.duration)
            let status = try await watcher.follow(sagaID, after: self.afterSequence)
            if status != .completed { throw Exit(CommandStatus(status)) }
        }
    }
}
