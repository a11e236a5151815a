import InteropMessages
import NIOCore
import RPCTransport

enum StreamingCases {
    private static let requestSizes = [27182, 8, 1828, 45904]
    private static let responseSizes: [Int32] = [31415, 9, 2653, 58979]

    static func client(_ service: TestServiceClient) async throws {
        let call = try await service.streamingInputCall()
        for size in Self.requestSizes {
            try await call.requests.write(StreamingInputCallRequest(payload: Payload(zeros: size)).encoded)
        }
        let response = try StreamingInputCallResponse(decoding: try await call.response().message)
        try expectEqual(response.aggregatedPayloadSize, 74922, "the sum of the payloads")
    }

    static func server(_ service: TestServiceClient) async throws {
        let request = StreamingOutputCallRequest(
            responseParameters: Self.responseSizes.map { ResponseParameters(size: $0) })
        var sizes: [Int32] = []
        for try await message in try await service.streamingOutputCall(request) {
            sizes.append(try Self.size(message))
        }
        try expectEqual(sizes, Self.responseSizes, "the responses' sizes")
    }

    private static func size(_ message: ByteBuffer) throws -> Int32 {
        Int32(try StreamingOutputCallResponse(decoding: message).payload?.body.count ?? 0)
    }

    private static func exchange(_ request: Int, _ response: Int32) -> ByteBuffer {
        StreamingOutputCallRequest(
            responseParameters: [ResponseParameters(size: response)], payload: Payload(zeros: request)
        ).encoded
    }

    static func pingPong(_ service: TestServiceClient) async throws {
        let call = try await service.fullDuplexCall()
        var responses = call.responses.makeAsyncIterator()
        for (request, response) in zip(Self.requestSizes, Self.responseSizes) {
            try await call.requests.write(Self.exchange(request, response))
            guard let message = try await responses.next() else { throw Failure("a response is missing") }
            try expectEqual(try Self.size(message), response, "a response's size")
        }
        call.requests.finish()
        try expect(try await responses.next() == nil, "there is a response too many")
    }

    static func empty(_ service: TestServiceClient) async throws {
        let call = try await service.fullDuplexCall()
        call.requests.finish()
        for try await _ in call.responses { throw Failure("there is a response") }
    }

    static func cancelAfterBegin(_ service: TestServiceClient) async throws {
        let call = try await service.streamingInputCall()
        call.cancel()
        let error = try await service.status { _ = try await call.response() }
        try expectEqual(error.code, .cancelled, "the status")
    }

    static func cancelAfterFirstResponse(_ service: TestServiceClient) async throws {
        let call = try await service.fullDuplexCall()
        var responses = call.responses.makeAsyncIterator()
        try await call.requests.write(Self.exchange(27182, 31415))
        guard let message = try await responses.next() else { throw Failure("there is no response") }
        try expectEqual(try Self.size(message), 31415, "the response's size")
        call.cancel()
        let error = try await service.status { while try await responses.next() != nil {} }
        try expectEqual(error.code, .cancelled, "the status")
    }

    static func timeout(_ service: TestServiceClient) async throws {
        let error = try await service.status {
            let call = try await service.fullDuplexCall(options: RPCCallOptions(timeout: .milliseconds(1)))
            try await call.requests.write(
                StreamingOutputCallRequest(
                    responseParameters: [], payload: Payload(zeros: 27182)
                ).encoded)
            for try await _ in call.responses {}
        }
        try expectEqual(error.code, .deadlineExceeded, "the status")
    }
}
