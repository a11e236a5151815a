import NIOCore
import NIOPosix
import Testing

@testable import RPCTransport

/// Compressed messages both ways, in all four kinds of calls.
@Suite struct CompressedCallTests {
    /// What the client asks the handler for, in its first byte.
    private static func choice(_ message: ByteBuffer) -> MessageCompression {
        switch message.readableBytesView.first {
        case UInt8(ascii: "c")?: .always
        case UInt8(ascii: "n")?: .never
        default: .automatic
        }
    }

    private static let service = RPCService(
        name: "test.Echo",
        methods: [
            .unary("Get") { message, context in
                var reply = RPCReply(message: message, compression: Self.choice(message))
                reply.trailingMetadata.append("x-compressed", "\(context.requestIsCompressed)")
                return reply
            },
            .unaryAtOnce("GetAtOnce") { message, context in
                var reply = RPCReply(message: message, compression: Self.choice(message))
                reply.trailingMetadata.append("x-compressed", "\(context.requestIsCompressed)")
                return reply
            },
            .serverStreaming("Thrice") { message, context, writer in
                try await writer.write(message, compression: .never)
                try await writer.write(message, compression: .always)
                try await writer.write(message)
                writer.setTrailingMetadata(Metadata([("x-compressed", "\(context.requestIsCompressed)")]))
            },
            .clientStreaming("Flags") { messages, _ in
                var flags = ""
                var iterator = messages.makeAsyncIterator()
                while try await iterator.next() != nil { flags += iterator.isCompressed ? "1" : "0" }
                return RPCReply(message: ByteBuffer(text: flags))
            },
            .bidirectional("Chat") { messages, _, writer in
                var iterator = messages.makeAsyncIterator()
                while let message = try await iterator.next() {
                    try await writer.write(message, compression: iterator.isCompressed ? .always : .never)
                }
            },
        ])

    private static func text(_ first: Character) -> ByteBuffer {
        ByteBuffer(text: String(repeating: first, count: 3000))
    }

    @Test(arguments: [nil, .gzip, .deflate] as [RPCCompression?]) func unary(compression: RPCCompression?) async throws
    {
        try await withLoopback([Self.service]) { client, _, _ in
            let options = RPCCallOptions(compression: compression)
            for (letter, isCompressed) in [("c", true), ("n", false), ("a", false)] as [(Character, Bool)] {
                for method in ["Get", "GetAtOnce"] {
                    let response = try await client.unary("/test.Echo/\(method)", Self.text(letter), options: options)
                    #expect(response.message == Self.text(letter))
                    #expect(response.isCompressed == isCompressed)
                    #expect(response.trailingMetadata.first("x-compressed") == "\(compression != nil)")
                }
            }
        }
    }

    /// A message that takes milliseconds to inflate holds up no other call of the event loop.
    @Test func handlersOfCompressedMessagesLeaveTheEventLoop() async throws {
        let service = RPCService(
            name: "test.Where",
            methods: [
                .unary("Get") { message, _ in
                    let isOnLoop = MultiThreadedEventLoopGroup.currentEventLoop != nil
                    return RPCReply(message: ByteBuffer(text: isOnLoop ? "loop" : "elsewhere"))
                }
            ])
        try await withLoopback([service]) { client, _, _ in
            for (compression, place) in [(nil, "loop"), (.gzip, "elsewhere")] as [(RPCCompression?, String)] {
                let options = RPCCallOptions(compression: compression)
                let response = try await client.unary("/test.Where/Get", Self.text("x"), options: options)
                #expect(response.message.text == place)
            }
        }
    }

    @Test func configuredResponses() async throws {
        try await withLoopback([Self.service], configure: { $0.compressedResponseBytes = 3000 }) { client, _, _ in
            let short = ByteBuffer(repeating: UInt8(ascii: "a"), count: 2999)
            for (message, isCompressed) in [(Self.text("a"), true), (short, false), (Self.text("n"), false)] {
                let response = try await client.unary("/test.Echo/Get", message)
                #expect(response.isCompressed == isCompressed)
            }
        }
    }

    @Test func streams() async throws {
        try await withLoopback([Self.service]) { client, _, _ in
            let options = RPCCallOptions(compression: .gzip)
            let responses = try await client.serverStreaming("/test.Echo/Thrice", Self.text("s"), options: options)
            var iterator = responses.makeAsyncIterator()
            var flags: [Bool] = []
            while let message = try await iterator.next() {
                #expect(message == Self.text("s"))
                flags.append(iterator.isCompressed)
            }
            #expect(flags == [false, true, false])
            #expect(responses.trailingMetadata?.first("x-compressed") == "true")

            let flagging = try await client.clientStreaming("/test.Echo/Flags", options: options)
            try await flagging.requests.write(Self.text("x"))
            try await flagging.requests.write(Self.text("y"), compression: .never)
            try await flagging.requests.write(Self.text("z"), compression: .always)
            let flags101 = try await flagging.response()
            #expect(flags101.message.text == "101")

            let chat = try await client.bidirectional("/test.Echo/Chat", options: options)
            var answers = chat.responses.makeAsyncIterator()
            for choice in [MessageCompression.never, .always, .never] {
                try await chat.requests.write(Self.text("x"), compression: choice)
                let answer = try await answers.next()
                #expect(answer == Self.text("x"))
                #expect(answers.isCompressed == (choice == .always))
            }
            chat.requests.finish()
            let end = try await answers.next()
            #expect(end == nil)
        }
    }

    /// The limit holds for what comes out, in both directions; exactly at it is fine.
    @Test func limitsHoldOnceInflated() async throws {
        let limit = 100_000
        try await withLoopback(
            [Self.service], configure: { $0.maximumMessageBytes = limit },
            configureClient: { $0.maximumMessageBytes = limit }
        ) { client, _, _ in
            let options = RPCCallOptions(compression: .gzip)
            let exact = ByteBuffer(repeating: UInt8(ascii: "c"), count: limit)
            let more = ByteBuffer(repeating: UInt8(ascii: "c"), count: limit + 1)
            let response = try await client.unary("/test.Echo/Get", exact, options: options)
            #expect(response.message == exact)
            let error = await status { _ = try await client.unary("/test.Echo/Get", more, options: options) }
            #expect(error?.code == .resourceExhausted)
            #expect(error?.message.contains("server receives no more") == true)
            let chat = try await client.bidirectional("/test.Echo/Chat", options: options)
            try await chat.requests.write(more)
            let late = await status { for try await _ in chat.responses {} }
            #expect(late?.code == .resourceExhausted)
        }
        try await withLoopback([Self.service], configureClient: { $0.maximumMessageBytes = limit }) { client, _, _ in
            let more = ByteBuffer(repeating: UInt8(ascii: "c"), count: limit + 1)
            let error = await status {
                _ = try await client.unary("/test.Echo/Get", more, options: RPCCallOptions(compression: .deflate))
            }
            #expect(error?.code == .resourceExhausted)
            #expect(error?.message.contains("client receives no more") == true)
        }
    }
}
