import ArgumentParser
import DeviceRPC
import Glibc

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Loads a server and measures it, closed loop.",
        discussion: """
            A fixed number of calls is in flight; each that ends is followed by the next. create makes devices; get asks \
            for random ones of the newest sagas (--ids of them); health is grpc.health.v1.Health/Check. watch makes one \
            device and follows its saga with --in-flight streams: how long events take to reach each of them. Give it \
            time to open them all, e.g. with --option boot_ms=20000 of the simulated provider. batch is create over one \
            CreateDevices stream; watch-batch the same, and one WatchSagas stream follows them all: how long events take to \
            reach it.

            \(CommandStatus.help)
            """)

    enum Method: String, CaseIterable, ExpressibleByArgument {
        case create, get, health, watch, batch
        case watchBatch = "watch-batch"
    }

    @Argument(help: "create, get, health, watch, batch or watch-batch.")
    var method: Method

    @Option(help: "Calls in flight.", transform: OptionValues.number(1...65_536))
    var inFlight: Int = 64

    @Option(help: "Connections that the calls are spread over.", transform: OptionValues.number(1...1024))
    var connections: Int = 4

    @Option(
        help: ArgumentHelp("How long to go on, if there is no --count.", valueName: "duration"),
        transform: OptionValues.duration())
    var duration = DurationArgument(.seconds(10))

    @Option(
        help: "How many calls to make, instead of a duration.", transform: OptionValues.number(1...1_000_000_000_000))
    var count: Int?

    @Option(
        help: ArgumentHelp("How long each of the calls in flight rests before the next.", valueName: "duration"),
        transform: OptionValues.duration(.zero ... .seconds(86_400)))
    var pause = DurationArgument(.zero)

    @Option(
        help: "For get: how many of the newest sagas to choose from.", transform: OptionValues.number(1...10_000_000))
    var ids: Int = 1000

    @Option(
        help: ArgumentHelp("How long each call may take.", valueName: "duration"), transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(60))

    @OptionGroup(title: "Request of create")
    var create: CreateOptions

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func run() async throws {
        try await self.client.run { first in
            let clients = (0..<self.connections).map { _ in first.another() }
            let result =
                switch self.method {
                case .watch: try await self.watch(first, clients)
                case .watchBatch: try await self.watchBatch(first)
                default: try await self.load(first, clients)
                }
            for client in clients { await client.close() }
            switch self.client.output {
            case .json: StandardOutput.write(result.json(self.method.rawValue, self.inFlight, self.connections) + "\n")
            case .text: StandardOutput.write(result.text())
            }
            if result.latencies.count == 0 { throw Exit(.unavailable) }
        }
    }

    private func load(_ first: DeviceClient, _ clients: [DeviceClient]) async throws -> LoadResult {
        let call = try await self.makeCall(first)
        let generator = LoadGenerator(
            inFlight: self.inFlight, limit: self.count.map { .calls($0) } ?? .duration(self.duration.duration),
            pause: self.pause.duration)
        return await generator.run { worker in try await call(clients[worker % clients.count]) }
    }

    private func watch(_ first: DeviceClient, _ clients: [DeviceClient]) async throws -> LoadResult {
        var request = try self.createRequest()
        request.returnWhen = .accepted
        let saga = try await first.createDevice(request, timeout: self.timeout.duration)
        let load = WatchLoad(sagaID: saga.sagaID, streams: self.inFlight)
        let streams = self.inFlight
        return await load.run {
            clients[$0 % clients.count]
        } onOpen: {
            StandardError.write("\(streams) streams are open\n")
        }
    }

    private func watchBatch(_ client: DeviceClient) async throws -> LoadResult {
        let batchID = RandomID.make(prefix: "bench")
        return try await BatchWatchLoad(batchID: batchID, count: self.count ?? 1000).run(client) {
            let create = try self.creations(client, batchID: batchID)
            let generator = LoadGenerator(
                inFlight: self.inFlight, limit: .calls(self.count ?? 1000), pause: self.pause.duration)
            return await generator.run { _ in try await create(client) }
        }
    }

    /// Over one stream, whichever client is given.
    private func creations(
        _ client: DeviceClient, batchID: String
    ) throws -> @Sendable (DeviceClient) async throws -> Void {
        var template = try self.createRequest()
        template.batchID = batchID
        let (stream, timeout) = (CreationStream(client), self.timeout.duration)
        return { [template] _ in
            var request = template
            request.requestID = RandomID.make(prefix: "bench")
            _ = try await stream.create(request, timeout: timeout)
        }
    }

    private func createRequest() throws -> V1.CreateDeviceRequest {
        var request = try self.create.request()
        if request.userID.isEmpty { request.userID = "bench" }
        if request.name.isEmpty { request.name = "bench" }
        try RequestCheck.check(request)
        return request
    }

    private func makeCall(_ client: DeviceClient) async throws -> @Sendable (DeviceClient) async throws -> Void {
        let timeout = self.timeout.duration
        switch self.method {
        case .health:
            return { try await $0.checkHealth(timeout: timeout) }
        case .create:
            let template = try self.createRequest()
            return { client in
                var request = template
                request.requestID = RandomID.make(prefix: "bench")
                _ = try await client.createDevice(request, timeout: timeout)
            }
        case .batch:
            return try self.creations(client, batchID: RandomID.make(prefix: "bench"))
        case .watch, .watchBatch:
            throw UsageError("\(self.method.rawValue) is no single call")
        case .get:
            let ids = try await self.sagaIDs(client)
            return { client in
                let id = ids[Int.random(in: 0..<ids.count)]
                _ = try await client.getSaga(.with { $0.sagaID = id }, timeout: timeout)
            }
        }
    }

    private func sagaIDs(_ client: DeviceClient) async throws -> [String] {
        var request = V1.ListSagasRequest.with { $0.pageSize = 1000 }
        var ids: [String] = []
        repeat {
            let response = try await client.listSagas(request, timeout: .seconds(60))
            ids += response.sagas.map(\.sagaID)
            request.pageToken = response.nextPageToken
        } while !request.pageToken.isEmpty && ids.count < self.ids
        if ids.isEmpty { throw UsageError("the server has no sagas to ask for; run bench create first") }
        return Array(ids.prefix(self.ids))
    }
}
