import ArgumentParser
import InteropMessages
import NIOCore
import RPCTransport

/// The cases, by their names in interop-test-descriptions.md.
enum InteropCase: String, CaseIterable, ExpressibleByArgument {
    case emptyUnary = "empty_unary"
    case largeUnary = "large_unary"
    case clientCompressedUnary = "client_compressed_unary"
    case serverCompressedUnary = "server_compressed_unary"
    case clientStreaming = "client_streaming"
    case clientCompressedStreaming = "client_compressed_streaming"
    case serverStreaming = "server_streaming"
    case serverCompressedStreaming = "server_compressed_streaming"
    case pingPong = "ping_pong"
    case emptyStream = "empty_stream"
    case customMetadata = "custom_metadata"
    case statusCodeAndMessage = "status_code_and_message"
    case specialStatusMessage = "special_status_message"
    case unimplementedMethod = "unimplemented_method"
    case unimplementedService = "unimplemented_service"
    case cancelAfterBegin = "cancel_after_begin"
    case cancelAfterFirstResponse = "cancel_after_first_response"
    case timeoutOnSleepingServer = "timeout_on_sleeping_server"

    func run(with service: TestServiceClient) async throws {
        switch self {
        case .emptyUnary: try await service.emptyCall()
        case .largeUnary: try await UnaryCases.large(service)
        case .clientCompressedUnary: try await CompressionCases.clientUnary(service)
        case .serverCompressedUnary: try await CompressionCases.serverUnary(service)
        case .clientStreaming: try await StreamingCases.client(service)
        case .clientCompressedStreaming: try await CompressionCases.clientStreaming(service)
        case .serverStreaming: try await StreamingCases.server(service)
        case .serverCompressedStreaming: try await CompressionCases.serverStreaming(service)
        case .pingPong: try await StreamingCases.pingPong(service)
        case .emptyStream: try await StreamingCases.empty(service)
        case .customMetadata: try await MetadataCases.custom(service)
        case .statusCodeAndMessage: try await MetadataCases.status(service, code: 2, message: "test status message")
        case .specialStatusMessage:
            try await MetadataCases.unaryStatus(
                service, code: 2,
                message: "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \u{1F608}\t\n")
        case .unimplementedMethod:
            try await UnaryCases.unimplemented(service, "/grpc.testing.TestService/UnimplementedCall")
        case .unimplementedService:
            try await UnaryCases.unimplemented(service, "/grpc.testing.UnimplementedService/UnimplementedCall")
        case .cancelAfterBegin: try await StreamingCases.cancelAfterBegin(service)
        case .cancelAfterFirstResponse: try await StreamingCases.cancelAfterFirstResponse(service)
        case .timeoutOnSleepingServer: try await StreamingCases.timeout(service)
        }
    }
}
