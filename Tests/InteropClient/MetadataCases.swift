import InteropMessages
import NIOCore
import RPCTransport

enum MetadataCases {
    private static let initialName = "x-grpc-test-echo-initial"
    private static let trailingName = "x-grpc-test-echo-trailing-bin"

    static func custom(_ service: TestServiceClient) async throws {
        var options = RPCCallOptions()
        options.metadata.append(Self.initialName, "test_initial_metadata_value")
        options.metadata.append(Self.trailingName, binary: [0xAB, 0xAB, 0xAB])

        var request = SimpleRequest()
        request.responseSize = UnaryCases.responseSize
        request.payload = Payload(zeros: UnaryCases.requestSize)
        let (_, response) = try await service.unaryCall(request, options: options)
        try Self.check(response.initialMetadata, response.trailingMetadata)

        let call = try await service.fullDuplexCall(options: options)
        let exchange = StreamingOutputCallRequest(
            responseParameters: [ResponseParameters(size: UnaryCases.responseSize)],
            payload: Payload(zeros: UnaryCases.requestSize))
        try await call.requests.write(exchange.encoded)
        call.requests.finish()
        for try await _ in call.responses {}
        try Self.check(await call.responses.initialMetadata, call.responses.trailingMetadata ?? Metadata())
    }

    private static func check(_ initial: Metadata, _ trailing: Metadata) throws {
        try expectEqual(initial.first(Self.initialName), "test_initial_metadata_value", Self.initialName)
        try expectEqual(trailing.firstBinary(Self.trailingName), [0xAB, 0xAB, 0xAB], Self.trailingName)
    }

    static func status(_ service: TestServiceClient, code: Int32, message: String) async throws {
        try await Self.unaryStatus(service, code: code, message: message)
        let error = try await service.status {
            let call = try await service.fullDuplexCall()
            var request = StreamingOutputCallRequest()
            request.responseStatus = EchoStatus(code: code, message: message)
            try await call.requests.write(request.encoded)
            call.requests.finish()
            for try await _ in call.responses {}
        }
        try Self.check(error, code, message)
    }

    static func unaryStatus(_ service: TestServiceClient, code: Int32, message: String) async throws {
        var request = SimpleRequest()
        request.responseStatus = EchoStatus(code: code, message: message)
        let error = try await service.status { _ = try await service.unaryCall(request) }
        try Self.check(error, code, message)
    }

    private static func check(_ error: RPCError, _ code: Int32, _ message: String) throws {
        try expectEqual(error.code.rawValue, Int(code), "the status")
        try expectEqual(error.message, message, "the status's message")
    }
}
