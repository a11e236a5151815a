import ArgumentParser
import DeviceRPC

/// What both lists take.
struct ListOptions: ParsableArguments {
    @Option(help: "The most that is shown.", transform: OptionValues.number(1...1_000_000))
    var limit: Int = 100

    @Option(
        help: ArgumentHelp("How long to wait for each page.", valueName: "duration"),
        transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(30))

    /// Reads pages until there are `limit` elements or no more.
    func pages<Element>(_ page: (_ size: UInt32, _ token: String) async throws -> ([Element], String)) async throws
        -> [Element]
    {
        var elements: [Element] = []
        var token = ""
        repeat {
            let (more, next) = try await page(UInt32(min(1000, self.limit - elements.count)), token)
            elements += more
            token = next
        } while !token.isEmpty && elements.count < self.limit
        return Array(elements.prefix(self.limit))
    }
}

struct ListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Lists devices, newest first; by name, if they are found by the beginning of it alone.",
        discussion: CommandStatus.help)

    @Option(name: .customLong("user"), help: "Only this user's.")
    var userID: String?

    @Option(name: .customLong("status"), help: "creating, running, stopped, error, deleting; may come several times.")
    var statuses: [String] = []

    @Option(help: "Only this provider's.")
    var provider: String?

    @Option(name: .customLong("batch"), help: "Only those that a batch has made.")
    var batchID: String?

    @Option(name: .customLong("name"), help: "Only those whose names begin with this.")
    var namePrefix: String?

    @Option(help: "Only those with this tag.")
    var tag: String?

    @OptionGroup var list: ListOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            var request = V1.ListDevicesRequest()
            request.userID = self.userID ?? ""
            request.statuses = try self.statuses.map { try EnumArgument.value($0, "--status") }
            if let provider = self.provider { request.provider = try EnumArgument.value(provider, "--provider") }
            request.batchID = self.batchID ?? ""
            request.namePrefix = self.namePrefix ?? ""
            request.tag = self.tag ?? ""
            let devices = try await self.list.pages { size, token in
                request.pageSize = size
                request.pageToken = token
                let response = try await client.listDevices(request, timeout: self.list.timeout.duration)
                return (response.devices, response.nextPageToken)
            }
            self.client.write(V1.ListDevicesResponse.with { $0.devices = devices }) {
                DeviceText.devices(devices, style: self.client.terminal().style)
            }
        }
    }
}

struct SagasCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sagas", abstract: "Lists sagas, newest first.", discussion: CommandStatus.help)

    @Option(
        name: .customLong("status"),
        help: "running, completed, compensating, compensated, parked; may come several times.")
    var statuses: [String] = []

    @Option(help: "e.g. DEVICE_CREATION.")
    var type: String?

    @Option(name: .customLong("user"), help: "Only this user's.")
    var userID: String?

    @Option(name: .customLong("device"), help: "Only this device's.")
    var deviceID: String?

    @Option(name: .customLong("batch"), help: "Only this batch's.")
    var batchID: String?

    @Option(name: .customLong("request-id"), help: "Only those that began with this request id.")
    var requestID: String?

    @OptionGroup var list: ListOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { client in
            var request = V1.ListSagasRequest()
            request.statuses = try self.statuses.map { try EnumArgument.value($0, "--status") }
            request.type = self.type ?? ""
            request.userID = self.userID ?? ""
            request.deviceID = self.deviceID ?? ""
            request.batchID = self.batchID ?? ""
            request.requestID = self.requestID ?? ""
            let sagas = try await self.list.pages { size, token in
                request.pageSize = size
                request.pageToken = token
                let response = try await client.listSagas(request, timeout: self.list.timeout.duration)
                return (response.sagas, response.nextPageToken)
            }
            self.client.write(V1.ListSagasResponse.with { $0.sagas = sagas }) {
                DeviceText.sagas(sagas, style: self.client.terminal().style)
            }
        }
    }
}
