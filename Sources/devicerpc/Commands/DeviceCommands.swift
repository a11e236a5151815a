import ArgumentParser
import DeviceRPC

/// What the commands to devices take.
struct OperationOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How long each saga may take until it can't be stopped, 1s to 24h. [10m]", valueName: "duration"),
        transform: OptionValues.duration(.seconds(1) ... .seconds(86_400)))
    var sagaTimeout: DurationArgument?

    @Option(help: "accepted: don't wait; finished: until it is done.")
    var returnWhen: String?

    @Option(help: "Of one device: repeating the call with the same id finds the same saga. Made up if not given.")
    var requestID: String?

    @Flag(help: "Of one device: show the steps.")
    var watch = false

    @Option(
        help: ArgumentHelp("Calls a second at most.", valueName: "number"),
        transform: OptionValues.number(1...1000))
    var rate: Int = 50

    @Option(
        help: ArgumentHelp("How long to wait for each answer, and for a server that is away.", valueName: "duration"),
        transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(900))

    static let help = """
        Several devices, or a selection, are gone through at a bounded rate, with one line each (one JSON object per line with \
        --output json). A selection shows how many there are and the first of them, and asks before it goes on. The exit code is \
        the gravest that one of them would have had alone.
        """

    /// A request, without what differs from device to device.
    func request<Request: DeviceOperationRequest>(_ empty: Request) throws -> Request {
        var request = empty
        if let timeout = self.sagaTimeout { request.sagaTimeout = ProtobufDuration(timeout.duration) }
        if let returnWhen = self.returnWhen { request.returnWhen = try EnumArgument.value(returnWhen, "--return-when") }
        if self.watch { request.returnWhen = .accepted }
        if request.returnWhen == .provisioned {
            throw UsageError("--return-when: 'provisioned' is nothing to wait for here (allowed: accepted, finished)")
        }
        return request
    }

    func validate(_ selection: DeviceSelection) throws {
        if selection.deviceIDs.count != 1, self.watch || self.requestID != nil {
            throw ValidationError("--watch and --request-id are for one device, given by its id.")
        }
    }

    /// Does something to the selected devices.
    ///
    /// - Parameters:
    ///   - words: the command, and what is said of a device that it was done to.
    ///   - only: others are left alone; empty: none are.
    func run<Request: DeviceOperationRequest>(
        _ selection: DeviceSelection, _ options: ClientOptions, _ words: (command: String, done: String),
        _ empty: Request, only: [V1.DeviceStatus] = [],
        _ send: @escaping @Sendable (DeviceClient, Request, Duration) async throws -> String
    ) async throws {
        try await options.run { client in
            let request = try self.request(empty)
            let isPending = request.returnWhen == .accepted
            let operations = DeviceOperator(
                client: client, options: options, rate: self.rate, timeout: self.timeout.duration, only: only,
                requestID: self.requestID ?? "", word: isPending ? "to be \(words.done)" : words.done
            ) { call in
                var request = request
                request.deviceID = call.deviceID
                request.requestID = call.requestID
                return try await send(client, request, call.timeout)
            }
            guard self.watch else {
                let timeout = self.timeout.duration
                return try await operations.run(
                    try await selection.ids(client, options, for: words.command, only: only, timeout: timeout))
            }
            let sagaID = try await operations.call(selection.deviceIDs[0])
            if options.output == .text { StandardOutput.write(DeviceText.fields([("saga_id", sagaID)])) }
            let watcher = SagaWatcher(client: client, options: options, patience: self.timeout.duration)
            let status = try await watcher.follow(sagaID)
            if status != .completed { throw Exit(CommandStatus(status)) }
        }
    }
}

struct DeleteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Deletes devices.",
        discussion: """
            A device that is being created is undone, and whatever else is done with one is stopped first. Whose site is away is \
            deleted once that is back; the call waits for it as long as --timeout says, the deletion goes on in any case.

            \(OperationOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: DeviceSelection

    @OptionGroup(title: "Request")
    var operation: OperationOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func validate() throws { try self.operation.validate(self.selection) }

    func run() async throws {
        try await self.operation.run(
            self.selection, self.client, ("delete", "deleted"), V1.DeleteDeviceRequest()
        ) { try await $0.deleteDevice($1, timeout: $2).sagaID }
    }
}

struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Stops the creation of devices, and undoes it.",
        discussion: """
            Devices that run already are left alone. One that comes to run while this is under way is deleted all the same.

            \(OperationOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: DeviceSelection

    @OptionGroup(title: "Request")
    var operation: OperationOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func validate() throws {
        try self.operation.validate(self.selection)
        if self.operation.watch { throw ValidationError("--watch: is for `devicerpc delete`.") }
    }

    func run() async throws {
        try await self.operation.run(
            self.selection, self.client, ("cancel", "deleted"), V1.DeleteDeviceRequest(), only: [.creating]
        ) { try await $0.deleteDevice($1, timeout: $2).sagaID }
    }
}

struct StartCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "start", abstract: "Starts devices that are stopped.",
        discussion: """
            One that runs is left as it is. A start that fails leaves the device stopped, and `devicerpc get` says why.

            \(OperationOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: DeviceSelection

    @OptionGroup(title: "Request")
    var operation: OperationOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func validate() throws { try self.operation.validate(self.selection) }

    func run() async throws {
        try await self.operation.run(self.selection, self.client, ("start", "started"), V1.StartDeviceRequest()) {
            try await $0.startDevice($1, timeout: $2).sagaID
        }
    }
}

struct StopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stop", abstract: "Stops devices, so that they can be started again.",
        discussion: """
            One that is stopped is left as it is.

            \(OperationOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: DeviceSelection

    @OptionGroup(title: "Request")
    var operation: OperationOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func validate() throws { try self.operation.validate(self.selection) }

    func run() async throws {
        try await self.operation.run(self.selection, self.client, ("stop", "stopped"), V1.StopDeviceRequest()) {
            try await $0.stopDevice($1, timeout: $2).sagaID
        }
    }
}

struct RestartCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restart", abstract: "Stops devices, and starts them again.",
        discussion: """
            One that is stopped is started. A restart that fails leaves the device stopped, and `devicerpc get` says why.

            \(OperationOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: DeviceSelection

    @OptionGroup(title: "Request")
    var operation: OperationOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func validate() throws { try self.operation.validate(self.selection) }

    func run() async throws {
        try await self.operation.run(self.selection, self.client, ("restart", "restarted"), V1.RestartDeviceRequest()) {
            try await $0.restartDevice($1, timeout: $2).sagaID
        }
    }
}
