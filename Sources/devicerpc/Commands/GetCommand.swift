import ArgumentParser
import DeviceRPC
import SagaRuntime

struct GetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Shows a saga or a device.", discussion: CommandStatus.help)

    @Argument(
        help: "A saga's id (saga_…) or a device's.", transform: OptionValues.id("saga_1730188800000_k3x9q2m7ab"))
    var id: String

    @Option(
        help: ArgumentHelp("How long to wait for the answer.", valueName: "duration"),
        transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(10))

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            if self.id.hasPrefix("saga_") {
                let saga = try await client.getSaga(.with { $0.sagaID = self.id }, timeout: self.timeout.duration)
                self.client.write(saga) { DeviceText.saga(saga, style: self.client.terminal().style) }
            } else {
                let device = try await client.getDevice(.with { $0.deviceID = self.id }, timeout: self.timeout.duration)
                self.client.write(device) { DeviceText.device(device) }
            }
        }
    }
}
