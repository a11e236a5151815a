import ArgumentParser
import DeviceRPC

/// What the commands that delete devices take.
struct DeletionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How long each saga waits for who holds the device, 1s to 24h. [10m]", valueName: "duration"),
        transform: OptionValues.duration(.seconds(1) ... .seconds(86_400)))
    var sagaTimeout: DurationArgument?

    @Option(help: "accepted: don't wait; finished: until the device is gone.")
    var returnWhen: String?

    @Option(
        help: ArgumentHelp("Deletions a second at most.", valueName: "number"),
        transform: OptionValues.number(1...1000))
    var rate: Int = 50

    @Option(
        help: ArgumentHelp("How long to wait for each answer, and for a server that is away.", valueName: "duration"),
        transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(900))

    static let help = """
        Several devices, or a selection, are deleted at a bounded rate, with one line each (one JSON object per line with \
        --output json). A selection shows how many there are and the first of them, and asks before it goes on. The exit code is \
        the gravest that one of them would have had alone.
        """

    func request() throws -> V1.DeleteDeviceRequest {
        var request = V1.DeleteDeviceRequest()
        if let timeout = self.sagaTimeout { request.sagaTimeout = ProtobufDuration(timeout.duration) }
        if let returnWhen = self.returnWhen { request.returnWhen = try EnumArgument.value(returnWhen, "--return-when") }
        if request.returnWhen == .provisioned {
            throw UsageError("--return-when: 'provisioned' is nothing to wait for here (allowed: accepted, finished)")
        }
        return request
    }
}

struct DeleteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Deletes devices.",
        discussion: """
            A device that is being created is undone, and whatever else is done with one is stopped first. Whose site is away is \
            deleted once that is back; the call waits for it as long as --timeout says, the deletion goes on in any case.

            \(DeletionOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: DeviceSelection

    @Option(help: "Of one device: repeating the call with the same id finds the same deletion. Made up if not given.")
    var requestID: String?

    @Flag(help: "Of one device: show the steps until it is gone.")
    var watch = false

    @OptionGroup(title: "Request")
    var deletion: DeletionOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func validate() throws {
        if self.selection.deviceIDs.count != 1, self.watch || self.requestID != nil {
            throw ValidationError("--watch and --request-id are for one device, given by its id.")
        }
    }

    func run() async throws {
        try await self.client.run { client in
            var request = try self.deletion.request()
            request.requestID = self.requestID ?? ""
            if self.watch { request.returnWhen = .accepted }
            let timeout = self.deletion.timeout.duration
            let deleter = DeviceDeleter(
                client: client, options: self.client, rate: self.deletion.rate, only: [], timeout: timeout,
                request: request)
            guard self.watch else {
                return try await deleter.run(
                    try await self.selection.ids(client, self.client, for: "delete", only: [], timeout: timeout))
            }
            let sagaID = try await deleter.delete(self.selection.deviceIDs[0]).sagaID
            if self.client.output == .text { StandardOutput.write(DeviceText.fields([("saga_id", sagaID)])) }
            let watcher = SagaWatcher(client: client, options: self.client, patience: timeout)
            let status = try await watcher.follow(sagaID)
            if status != .completed { throw Exit(CommandStatus(status)) }
        }
    }
}

struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Stops the creation of devices, and undoes it.",
        discussion: """
            Devices that run already are left alone. One that comes to run while this is under way is deleted all the same.

            \(DeletionOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: DeviceSelection

    @OptionGroup(title: "Request")
    var deletion: DeletionOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            let timeout = self.deletion.timeout.duration
            let deleter = DeviceDeleter(
                client: client, options: self.client, rate: self.deletion.rate, only: [.creating], timeout: timeout,
                request: try self.deletion.request())
            try await deleter.run(
                try await self.selection.ids(
                    client, self.client, for: "cancel", only: [.creating], timeout: timeout))
        }
    }
}
