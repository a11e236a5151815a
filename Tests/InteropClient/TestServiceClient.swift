import InteropMessages
import NIOCore
import RPCTransport

/// The methods of grpc.testing.TestService.
struct TestServiceClient {
    static let service = "/grpc.testing.TestService/"

    let client: RPCClient

    func emptyCall() async throws {
        let response = try await self.client.unary(Self.service + "EmptyCall", ByteBuffer())
        try expectEqual(response.message.readableBytes, 0, "bytes of an Empty")
    }

    func unaryCall(
        _ request: SimpleRequest, options: RPCCallOptions = RPCCallOptions()
    ) async throws -> (SimpleResponse, RPCResponse) {
        let response = try await self.client.unary(Self.service + "UnaryCall", request.encoded, options: options)
        return (try SimpleResponse(decoding: response.message), response)
    }

    func streamingInputCall(options: RPCCallOptions = RPCCallOptions()) async throws -> RPCClientStreamingCall {
        try await self.client.clientStreaming(Self.service + "StreamingInputCall", options: options)
    }

    func streamingOutputCall(_ request: StreamingOutputCallRequest) async throws -> RPCResponseStream {
        try await self.client.serverStreaming(Self.service + "StreamingOutputCall", request.encoded)
    }

    func fullDuplexCall(options: RPCCallOptions = RPCCallOptions()) async throws -> RPCBidirectionalCall {
        try await self.client.bidirectional(Self.service + "FullDuplexCall", options: options)
    }

    /// Runs what is to fail, and gives the status that it failed with.
    func status(of body: () async throws -> Void) async throws -> RPCError {
        do {
            try await body()
        } catch let error as RPCError {
            return error
        }
        throw Failure("the call succeeded")
    }
}
