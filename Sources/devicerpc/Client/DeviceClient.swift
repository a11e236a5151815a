import DeviceRPC
import NIOCore
import RPCTransport

/// The contract's calls, as the commands use them. The one place that knows the transport's client.
struct DeviceClient: Sendable {
    private static let service = "/cloudphone.device.v1.DeviceService/"

    private let client: RPCClient

    init(server: ListenAddress) {
        self.client = RPCClient(RPCClientConfiguration(host: server.host, port: server.port))
    }

    func close() async { await self.client.close() }

    func createDevice(_ request: V1.CreateDeviceRequest, timeout: Duration) async throws -> V1.CreateDeviceResponse {
        try await self.unary("CreateDevice", request, timeout)
    }
    func getDevice(_ request: V1.GetDeviceRequest, timeout: Duration) async throws -> V1.Device {
        try await self.unary("GetDevice", request, timeout)
    }
    func listDevices(_ request: V1.ListDevicesRequest, timeout: Duration) async throws -> V1.ListDevicesResponse {
        try await self.unary("ListDevices", request, timeout)
    }
    func getSaga(_ request: V1.GetSagaRequest, timeout: Duration) async throws -> V1.Saga {
        try await self.unary("GetSaga", request, timeout)
    }
    func listSagas(_ request: V1.ListSagasRequest, timeout: Duration) async throws -> V1.ListSagasResponse {
        try await self.unary("ListSagas", request, timeout)
    }

    /// Calls `body` with each event until the server ends the stream with OK.
    func watchSaga(_ request: V1.WatchSagaRequest, _ body: (V1.SagaEvent) async throws -> Void) async throws {
        do {
            let messages = try await self.client.serverStreaming(Self.service + "WatchSaga", request.encoded())
            for try await message in messages {
                try await body(try V1.SagaEvent(decoding: message, limits: .response))
            }
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
        _ method: String, _ request: some ProtobufMessage, _ timeout: Duration
    ) async throws -> Reply {
        let reply = try await self.call(Self.service + method, request.encoded(), timeout)
        do throws(MessageDecodingError) {
            return try Reply(decoding: reply, limits: .response)
        } catch {
            throw CallFailure(RPCError(.internal, "the server's answer can't be read: \(error)"))
        }
    }

    private func call(_ path: String, _ message: ByteBuffer, _ timeout: Duration) async throws -> ByteBuffer {
        do throws(RPCError) {
            return try await self.client.unary(path, message, options: RPCCallOptions(timeout: timeout)).message
        } catch {
            throw CallFailure(error)
        }
    }
}
