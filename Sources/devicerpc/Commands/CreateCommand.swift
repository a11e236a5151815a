import ArgumentParser
import DeviceRPC
import RPCTransport

struct CreateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Creates a device.",
        discussion: """
            Without --return-when the answer comes once all steps but START_DEVICE are done; with --watch the steps are \
            shown until the device runs or everything is undone. With --output json --watch, the first line is the \
            answer of CreateDevice, each further line an event.

            \(CommandStatus.help)
            """)

    @Option(help: "1 to 100 characters.")
    var name: String?

    @OptionGroup(title: "Request")
    var create: CreateOptions

    @Option(help: "Repeating a call with the same id makes no second device. Made up if not given, and printed.")
    var requestID: String?

    @Option(help: "A name of your own by which `devicerpc sagas --batch` finds the saga.")
    var batchID: String?

    @Flag(help: "Show the steps until the saga is over.")
    var watch = false

    @Option(
        help: ArgumentHelp("How long to wait for the answer, and for a server that is away.", valueName: "duration"),
        transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(900))

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            let request = try self.makeRequest()
            if self.client.output == .text { StandardError.write("request_id  \(request.requestID)\n") }
            let response = try await Retry.run(within: self.timeout.duration, onRetry: self.tellRetry) { remaining in
                try await client.createDevice(request, timeout: remaining)
            }
            if self.watch {
                try await self.watch(response, client)
            } else {
                self.client.write(response) {
                    DeviceText.device(response.device ?? V1.Device.with { $0.sagaID = response.sagaID })
                }
            }
        }
    }

    private func makeRequest() throws -> V1.CreateDeviceRequest {
        var request = try self.create.request()
        if let name = self.name { request.name = name }
        if let requestID = self.requestID { request.requestID = requestID }
        if let batchID = self.batchID { request.batchID = batchID }
        if request.requestID.isEmpty { request.requestID = RandomID.make(prefix: "cli") }
        if self.watch, request.returnWhen == .unspecified { request.returnWhen = .accepted }
        try RequestCheck.check(request)
        return request
    }

    private func watch(_ response: V1.CreateDeviceResponse, _ client: DeviceClient) async throws {
        switch self.client.output {
        case .json: StandardOutput.write(response.json(.compact) + "\n")
        case .text:
            StandardOutput.write(
                DeviceText.fields([("saga_id", response.sagaID), ("device_id", response.device?.deviceID ?? "")]))
        }
        let watcher = SagaWatcher(client: client, options: self.client, patience: self.timeout.duration)
        let status = try await watcher.follow(response.sagaID)
        if status == .completed, self.client.output == .text, let deviceID = response.device?.deviceID {
            let device = try await client.getDevice(.with { $0.deviceID = deviceID }, timeout: .seconds(10))
            StandardOutput.write(
                DeviceText.fields(
                    [("status", device.status.shortName)] + (device.connection.map(DeviceText.connection) ?? [])))
        }
        if status != .completed { throw Exit(CommandStatus(status)) }
    }

    private func tellRetry(_ failure: CallFailure, _ delay: Duration) {
        guard self.client.output == .text else { return }
        StandardError.write(
            "\(failure.code): \(Printable.text(failure.message)); again in \(ProgressBar.elapsed(delay))\n")
    }
}

/// Ids that nobody else makes.
enum RandomID {
    private static let alphabet = Array("0123456789abcdefghijklmnopqrstuvwxyz")

    static func make(prefix: String) -> String {
        prefix + "-" + String((0..<20).map { _ in Self.alphabet[Int.random(in: 0..<Self.alphabet.count)] })
    }
}
