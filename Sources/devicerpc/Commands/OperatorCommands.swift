import ArgumentParser
import DeviceRPC

/// What the commands to sagas take.
struct SagaCommandOptions: ParsableArguments {
    static let help = """
        Several sagas, or a selection, are commanded at a bounded rate, with one line each (one JSON object per line with \
        --output json). A selection takes only sagas on which the command has an effect, shows how many there are and the \
        first of them, and asks before it goes on. Whether all succeeded is in the exit code: the gravest that one of \
        them would have had alone.

        It takes the permission saga.admin. Any replica will do. The command is durable; the call waits until it is obeyed, \
        for 20 s and three quarters of --timeout at most, and code 7 says that nobody has come to it by then.
        """

    @Option(help: "Why; up to 1,000 characters. It stands in the saga's events and in the audit log.")
    var reason: String

    @Option(
        help: ArgumentHelp("Commands a second at most.", valueName: "number"), transform: OptionValues.number(1...1000))
    var rate: Int = 10

    @Option(
        help: ArgumentHelp("How long to wait for each answer.", valueName: "duration"),
        transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(30))

    func validate() throws {
        let count = self.reason.unicodeScalars.count
        if !(1...1000).contains(count) {
            throw ValidationError("--reason: must have 1 to 1000 characters, has \(count).")
        }
    }

    /// Whether nobody has obeyed yet what a parked or quarantined saga was told.
    static func isPending(_ saga: V1.Saga) -> Bool {
        saga.isQuarantined || saga.status == .parked && saga.waitingFor != nil
    }

    /// Commands one saga, or several.
    ///
    /// - Parameter action: of `Saga.next_actions`.
    func run(
        _ selection: SagaSelection, _ client: DeviceClient, _ options: ClientOptions, for action: String,
        isPending: @escaping @Sendable (V1.Saga) -> Bool,
        _ command: @escaping @Sendable (String) async throws -> V1.Saga
    ) async throws {
        let ids = try await selection.ids(client, options, for: action, timeout: self.timeout.duration)
        let commander = SagaCommander(rate: self.rate, options: options, command: command, isPending: isPending)
        try await commander.run(ids)
    }
}

struct CompensateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compensate", abstract: "Stops sagas, and undoes what they have done.",
        discussion: """
            Also sagas that are parked on their way forward. What is being undone, or undone already, is left as it is; what is \
            completed, or past the point of no return, is refused.

            \(SagaCommandOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: SagaSelection
    @OptionGroup var command: SagaCommandOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            let (reason, timeout) = (self.command.reason, self.command.timeout.duration)
            try await self.command.run(
                self.selection, client, self.client, for: "compensate",
                isPending: { $0.status == .running || SagaCommandOptions.isPending($0) }
            ) { id in
                let request = V1.CompensateSagaRequest.with {
                    $0.sagaID = id
                    $0.reason = reason
                }
                // Given twice it is obeyed once.
                return try await Retry.run(within: timeout) { remaining in
                    try await client.compensateSaga(request, timeout: remaining)
                }
            }
        }
    }
}

struct ResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Takes parked sagas up again, in the direction in which they parked.",
        discussion: """
            Also sagas in quarantine. With --skip-step the step that parked is taken for done, or undone: only for an undo that \
            failed and for a step past the point of no return.

            \(SagaCommandOptions.help)

            \(CommandStatus.help)
            """)

    @OptionGroup var selection: SagaSelection

    @Flag(help: "Take the step that parked for done, or for undone: somebody has seen to it by hand.")
    var skipStep = false

    @OptionGroup var command: SagaCommandOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            let timeout = self.command.timeout.duration
            let (reason, skips) = (self.command.reason, self.skipStep)
            try await self.command.run(
                self.selection, client, self.client, for: skips ? "skip" : "resume",
                isPending: { SagaCommandOptions.isPending($0) }
            ) { id in
                let request = V1.ResumeSagaRequest.with {
                    $0.sagaID = id
                    $0.reason = reason
                    $0.skipStep = skips
                }
                // A skip whose answer was lost may have been obeyed, and what is parked then is another step.
                if skips { return try await client.resumeSaga(request, timeout: timeout) }
                return try await Retry.run(within: timeout) { remaining in
                    try await client.resumeSaga(request, timeout: remaining)
                }
            }
        }
    }
}

struct PortsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ports", abstract: "Lists the ports that are held, and by whom.",
        discussion: "It takes the permission saga.admin.\n\n" + CommandStatus.help)

    @Option(help: "Only this host's.")
    var host: String?

    @OptionGroup var list: ListOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            var request = V1.ListPortsRequest()
            request.host = self.host ?? ""
            let ports = try await self.list.pages { size, token in
                request.pageSize = size
                request.pageToken = token
                let response = try await client.listPorts(request, timeout: self.list.timeout.duration)
                return (response.ports, response.nextPageToken)
            }
            self.client.write(V1.ListPortsResponse.with { $0.ports = ports }) {
                DeviceText.ports(ports, style: self.client.terminal().style)
            }
        }
    }
}
