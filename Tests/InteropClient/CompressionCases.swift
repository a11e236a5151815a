import InteropMessages
import NIOCore
import RPCTransport

enum CompressionCases {
    private static let compressing = RPCCallOptions(compression: .gzip)

    private static func request(responseCompressed: Bool? = nil, expectCompressed: Bool? = nil) -> SimpleRequest {
        var request = SimpleRequest()
        request.responseSize = UnaryCases.responseSize
        request.payload = Payload(zeros: UnaryCases.requestSize)
        request.responseCompressed = responseCompressed
        request.expectCompressed = expectCompressed
        return request
    }

    /// First the probe: a server that looks at the flag refuses a message that says that it is compressed and isn't.
    static func clientUnary(_ service: TestServiceClient) async throws {
        let error = try await service.status { _ = try await service.unaryCall(Self.request(expectCompressed: true)) }
        try expectEqual(error.code, .invalidArgument, "the status of the probe")
        try UnaryCases.check(
            try await service.unaryCall(Self.request(expectCompressed: true), options: Self.compressing).0)
        try UnaryCases.check(try await service.unaryCall(Self.request(expectCompressed: false)).0)
    }

    static func serverUnary(_ service: TestServiceClient) async throws {
        for isCompressed in [true, false] {
            let (response, reply) = try await service.unaryCall(Self.request(responseCompressed: isCompressed))
            try UnaryCases.check(response)
            try expectEqual(reply.isCompressed, isCompressed, "whether the response came compressed")
        }
    }

    static func clientStreaming(_ service: TestServiceClient) async throws {
        let probe = try await service.streamingInputCall()
        let error = try await service.status {
            try await probe.requests.write(
                StreamingInputCallRequest(payload: Payload(zeros: 27182), expectCompressed: true).encoded)
            _ = try await probe.response()
        }
        try expectEqual(error.code, .invalidArgument, "the status of the probe")
        let call = try await service.streamingInputCall(options: Self.compressing)
        try await call.requests.write(
            StreamingInputCallRequest(payload: Payload(zeros: 27182), expectCompressed: true).encoded,
            compression: .always)
        try await call.requests.write(
            StreamingInputCallRequest(payload: Payload(zeros: 45904), expectCompressed: false).encoded,
            compression: .never)
        let response = try StreamingInputCallResponse(decoding: try await call.response().message)
        try expectEqual(response.aggregatedPayloadSize, 73086, "the sum of the payloads")
    }

    static func serverStreaming(_ service: TestServiceClient) async throws {
        let wanted: [(Int32, Bool)] = [(31415, true), (92653, false)]
        let request = StreamingOutputCallRequest(
            responseParameters: wanted.map { ResponseParameters(size: $0.0, compressed: $0.1) })
        var responses = try await service.streamingOutputCall(request).makeAsyncIterator()
        for (size, isCompressed) in wanted {
            guard let message = try await responses.next() else { throw Failure("a response is missing") }
            let count = try StreamingOutputCallResponse(decoding: message).payload?.body.count
            try expectEqual(count, Int(size), "a response's size")
            try expectEqual(responses.isCompressed, isCompressed, "whether a response came compressed")
        }
        try expect(try await responses.next() == nil, "there is a response too many")
    }
}
