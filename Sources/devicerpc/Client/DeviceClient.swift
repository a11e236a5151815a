import DeviceRPC
import NIOCore
import RPCTransport

/// The contract's calls, as the commands use them. The one place that knows the transport's client.
struct DeviceClient: Sendable {
    private static let service = "/cloudphone.device.v1.DeviceService/"
    private static let adminService = "/cloudphone.device.v1.DeviceAdminService/"

    /// Asking twice does no harm. CreateDevice is repeated by the commands (`Retry`), which keep its request id.
    private static let readRetries = RPCRetryPolicy(codes: [.unavailable])

    private let configuration: ClientConfiguration
    private let client: RPCClient
    /// Says who calls.
    private let metadata: Metadata

    init(_ configuration: ClientConfiguration) {
        self.configuration = configuration
        var client = RPCClientConfiguration(host: configuration.server.host, port: configuration.server.port)
        // People wait, and a server that restarts is back within seconds.
        client.connectTimeout = .seconds(5)
        client.initialBackoff = .milliseconds(200)
        client.maximumBackoff = .seconds(5)
        client.keepaliveInterval = .seconds(30)
        client.userAgent = "devicerpc/\(Version.current)"
        client.tls = configuration.tls
        self.client = RPCClient(client)
        var metadata = Metadata()
        if let token = configuration.token { metadata.append("authorization", "Bearer \(token)") }
        self.metadata = metadata
    }

    /// A client of the same server with a connection of its own.
    func another() -> DeviceClient { DeviceClient(self.configuration) }

    func close() async { await self.client.close() }

    func createDevice(_ request: V1.CreateDeviceRequest, timeout: Duration) async throws -> V1.CreateDeviceResponse {
        try await self.unary("CreateDevice", request, timeout)
    }
    func deleteDevice(_ request: V1.DeleteDeviceRequest, timeout: Duration) async throws -> V1.DeleteDeviceResponse {
        try await self.unary("DeleteDevice", request, timeout)
    }
    func startDevice(_ request: V1.StartDeviceRequest, timeout: Duration) async throws -> V1.DeviceOperation {
        try await self.unary("StartDevice", request, timeout)
    }
    func stopDevice(_ request: V1.StopDeviceRequest, timeout: Duration) async throws -> V1.DeviceOperation {
        try await self.unary("StopDevice", request, timeout)
    }
    func restartDevice(_ request: V1.RestartDeviceRequest, timeout: Duration) async throws -> V1.DeviceOperation {
        try await self.unary("RestartDevice", request, timeout)
    }
    func getDevice(_ request: V1.GetDeviceRequest, timeout: Duration) async throws -> V1.Device {
        try await self.unary("GetDevice", request, timeout, Self.readRetries)
    }
    func listDevices(_ request: V1.ListDevicesRequest, timeout: Duration) async throws -> V1.ListDevicesResponse {
        try await self.unary("ListDevices", request, timeout, Self.readRetries)
    }
    func batchGetDevices(
        _ request: V1.BatchGetDevicesRequest, timeout: Duration
    ) async throws -> V1.BatchGetDevicesResponse {
        try await self.unary("BatchGetDevices", request, timeout, Self.readRetries)
    }
    func getSaga(_ request: V1.GetSagaRequest, timeout: Duration) async throws -> V1.Saga {
        try await self.unary("GetSaga", request, timeout, Self.readRetries)
    }
    func listSagas(_ request: V1.ListSagasRequest, timeout: Duration) async throws -> V1.ListSagasResponse {
        try await self.unary("ListSagas", request, timeout, Self.readRetries)
    }

    func compensateSaga(_ request: V1.CompensateSagaRequest, timeout: Duration) async throws -> V1.Saga {
        try await self.unary("CompensateSaga", request, timeout, of: Self.adminService)
    }
    func resumeSaga(_ request: V1.ResumeSagaRequest, timeout: Duration) async throws -> V1.Saga {
        try await self.unary("ResumeSaga", request, timeout, of: Self.adminService)
    }
    func listPorts(_ request: V1.ListPortsRequest, timeout: Duration) async throws -> V1.ListPortsResponse {
        try await self.unary("ListPorts", request, timeout, Self.readRetries, of: Self.adminService)
    }

    /// Calls `body` with each event until the server ends the stream with OK.
    func watchSaga(_ request: V1.WatchSagaRequest, _ body: (V1.SagaEvent) async throws -> Void) async throws {
        try await self.watch("WatchSaga", request, body)
    }

    /// The same with each update.
    func watchSagas(
        _ request: V1.WatchSagasRequest, _ body: (V1.WatchSagasResponse) async throws -> Void
    ) async throws { try await self.watch("WatchSagas", request, body) }

    private func watch<Message: ProtobufMessage>(
        _ method: String, _ request: some ProtobufMessage, _ body: (Message) async throws -> Void
    ) async throws {
        do {
            let messages = try await self.client.serverStreaming(
                Self.service + method, request.encoded(), options: RPCCallOptions(metadata: self.metadata))
            try await Self.read(messages, body)
        } catch let error as RPCError {
            throw CallFailure(error)
        }
    }

    /// A CreateDevices stream.
    struct Creations: Sendable {
        fileprivate let call: RPCBidirectionalCall

        func send(_ request: V1.CreateDeviceRequest) async throws(RPCError) {
            try await self.call.requests.write(request.encoded())
        }

        func finish() { self.call.requests.finish() }

        /// Calls `body` with each result until the server ends the stream with OK.
        func read(_ body: @Sendable (V1.CreateDevicesResult) async throws -> Void) async throws {
            try await DeviceClient.read(self.call.responses, body)
        }
    }

    func createDevices() async throws -> Creations {
        do throws(RPCError) {
            return Creations(
                call: try await self.client.bidirectional(
                    Self.service + "CreateDevices", options: RPCCallOptions(metadata: self.metadata)))
        } catch {
            throw CallFailure(error)
        }
    }

    private static func read<Message: ProtobufMessage>(
        _ messages: RPCResponseStream, _ body: (Message) async throws -> Void
    ) async throws {
        do {
            for try await message in messages { try await body(try Message(decoding: message, limits: .response)) }
        } catch let error as RPCError {
            throw CallFailure(error)
        } catch let error as MessageDecodingError {
            throw CallFailure(RPCError(.internal, "the server's answer can't be read: \(error)"))
        }
    }

    /// One empty `grpc.health.v1.Health/Check`.
    func checkHealth(timeout: Duration) async throws {
        _ = try await self.call("/grpc.health.v1.Health/Check", ByteBuffer(), timeout)
    }

    private func unary<Reply: ProtobufMessage>(
        _ method: String, _ request: some ProtobufMessage, _ timeout: Duration, _ retries: RPCRetryPolicy? = nil,
        of service: String = Self.service
    ) async throws -> Reply {
        let reply = try await self.call(service + method, request.encoded(), timeout, retries)
        do throws(MessageDecodingError) {
            return try Reply(decoding: reply, limits: .response)
        } catch {
            throw CallFailure(RPCError(.internal, "the server's answer can't be read: \(error)"))
        }
    }

    private func call(
        _ path: String, _ message: ByteBuffer, _ timeout: Duration, _ retries: RPCRetryPolicy? = nil
    ) async throws -> ByteBuffer {
        let options = RPCCallOptions(metadata: self.metadata, timeout: timeout, retryPolicy: retries)
        do throws(RPCError) {
            return try await self.client.unary(path, message, options: options).message
        } catch {
            throw CallFailure(error)
        }
    }
}
