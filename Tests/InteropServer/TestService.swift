import InteropMessages
import NIOCore
import RPCTransport

/// `grpc.testing.TestService`, as gRPC's interop-test-descriptions.md asks of a server.
struct TestService {
    /// The largest payload that a client may ask for.
    static let maximumPayloadBytes = 64 << 20
    /// Requests that HalfDuplexCall keeps until it answers.
    static let maximumHeldRequests = 1000

    /// UnimplementedCall is not among them, and UnimplementedService is nowhere.
    var service: RPCService {
        RPCService(
            name: "grpc.testing.TestService",
            methods: [
                .unary("EmptyCall") { _, context in EchoedMetadata(context).reply(ByteBuffer()) },
                .unary("UnaryCall") { try Self.unaryCall($0, $1) },
                .unary("CacheableUnaryCall") {
                    var reply = try Self.unaryCall($0, $1)
                    reply.initialMetadata.append("cache-control", "max-age=60, public")
                    return reply
                },
                .serverStreaming("StreamingOutputCall") { try await Self.streamingOutputCall($0, $1, $2) },
                .clientStreaming("StreamingInputCall") { try await Self.streamingInputCall($0, $1) },
                .bidirectional("FullDuplexCall") { try await Self.fullDuplexCall($0, $1, $2) },
                .bidirectional("HalfDuplexCall") { try await Self.halfDuplexCall($0, $1, $2) },
            ])
    }

    private static func unaryCall(_ message: ByteBuffer, _ context: RPCContext) throws -> RPCReply {
        let request = try SimpleRequest(decoding: message)
        try Self.check(isCompressed: context.requestIsCompressed, expected: request.expectCompressed)
        let echo = EchoedMetadata(context)
        try echo.throwStatus(request.responseStatus)
        var reply = echo.reply(SimpleResponse(payload: try Self.payload(request.responseSize)).encoded)
        reply.compression = MessageCompression(request.responseCompressed)
        return reply
    }

    private static func streamingOutputCall(
        _ message: ByteBuffer, _ context: RPCContext, _ writer: RPCWriter
    ) async throws {
        let request = try StreamingOutputCallRequest(decoding: message)
        let echo = EchoedMetadata(context)
        try echo.begin(writer)
        try await Self.write(request.responseParameters, to: writer)
        try echo.throwStatus(request.responseStatus)
    }

    private static func streamingInputCall(_ messages: RPCMessageStream, _ context: RPCContext) async throws -> RPCReply
    {
        var size = 0
        var iterator = messages.makeAsyncIterator()
        while let message = try await iterator.next() {
            let request = try StreamingInputCallRequest(decoding: message)
            try Self.check(isCompressed: iterator.isCompressed, expected: request.expectCompressed)
            size += request.payload?.body.count ?? 0
        }
        let response = StreamingInputCallResponse(aggregatedPayloadSize: Int32(clamping: size))
        return EchoedMetadata(context).reply(response.encoded)
    }

    private static func fullDuplexCall(
        _ messages: RPCMessageStream, _ context: RPCContext, _ writer: RPCWriter
    ) async throws {
        let echo = EchoedMetadata(context)
        try echo.begin(writer)
        for try await message in messages {
            let request = try StreamingOutputCallRequest(decoding: message)
            try echo.throwStatus(request.responseStatus)
            try await Self.write(request.responseParameters, to: writer)
        }
    }

    private static func halfDuplexCall(
        _ messages: RPCMessageStream, _ context: RPCContext, _ writer: RPCWriter
    ) async throws {
        var requests: [StreamingOutputCallRequest] = []
        for try await message in messages {
            guard requests.count < Self.maximumHeldRequests else {
                throw RPCError(.resourceExhausted, "more than \(Self.maximumHeldRequests) requests")
            }
            requests.append(try StreamingOutputCallRequest(decoding: message))
        }
        let echo = EchoedMetadata(context)
        try echo.begin(writer)
        for request in requests {
            try echo.throwStatus(request.responseStatus)
            try await Self.write(request.responseParameters, to: writer)
        }
    }

    private static func write(_ responses: [ResponseParameters], to writer: RPCWriter) async throws {
        for parameters in responses {
            if parameters.intervalMicroseconds > 0 {
                try await Task.sleep(for: .microseconds(parameters.intervalMicroseconds))
            }
            let response = StreamingOutputCallResponse(payload: try Self.payload(parameters.size))
            try await writer.write(response.encoded, compression: MessageCompression(parameters.compressed))
        }
    }

    private static func check(isCompressed: Bool, expected: Bool?) throws(RPCError) {
        guard let expected, expected != isCompressed else { return }
        throw RPCError(.invalidArgument, "the request is \(isCompressed ? "" : "not ")compressed")
    }

    private static func payload(_ size: Int32) throws(RPCError) -> Payload {
        guard (0...Self.maximumPayloadBytes).contains(Int(size)) else {
            throw RPCError(.invalidArgument, "a payload of \(size) bytes")
        }
        return Payload(zeros: Int(size))
    }
}

extension MessageCompression {
    fileprivate init(_ isWanted: Bool?) {
        switch isWanted {
        case true?: self = .always
        case false?: self = .never
        case nil: self = .automatic
        }
    }
}
