import NIOCore

@testable import RPCTransport

/// Methods of all four kinds, quick ones and such that wait at the gate, with large answers and with bad endings.
enum FuzzService {
    private static let paths = [
        "/f.F/Echo", "/f.F/Late", "/f.F/Stubborn", "/f.F/Large", "/f.F/Fail", "/f.F/Throw", "/f.F/Stream", "/f.F/Watch",
        "/f.F/Collect", "/f.F/Chat", "/f.F/Slow", "/f.F/Talk", "/f.F/Nothing", "/f.G/Echo", "f.F", "/",
    ]

    /// Later ones, so that what inputs say of the others stays true.
    private static let morePaths = ["/f.F/AtOnce", "/f.F/Stay", "/f.F/Pack"]

    static func path(_ choice: UInt8) -> String {
        choice < 0xC0
            ? self.paths[Int(choice) % self.paths.count] : self.morePaths[Int(choice) % self.morePaths.count]
    }

    static let largestMessage = 100_000

    static func make(_ gate: Gate) -> RPCService {
        let large = ByteBuffer(repeating: 0x61, count: Self.largestMessage)
        var late = Metadata()
        late.append("x-late", "yes")

        return RPCService(
            name: "f.F",
            methods: [
                .unary("Echo") { message, context in
                    await gate.count { RPCReply(message: message, trailingMetadata: context.metadata) }
                },
                .unary("Late") { [late] message, _ in
                    try await gate.count {
                        try await gate.wait(stubborn: false)
                        return RPCReply(message: message, initialMetadata: late)
                    }
                },
                .unary("Stubborn") { message, _ in
                    try await gate.count {
                        try await gate.wait(stubborn: true)
                        return RPCReply(message: message)
                    }
                },
                .unary("Large", maximumMessageBytes: 16) { _, _ in await gate.count { RPCReply(message: large) } },
                .unary("Fail") { message, context in
                    try await gate.count {
                        let text = String(buffer: message)
                        throw RPCError(
                            .failedPrecondition, text, details: Array(message.readableBytesView),
                            metadata: context.metadata)
                    }
                },
                .unary("Throw") { _, _ in try await gate.count { throw CancellationError() } },
                .serverStreaming("Stream") { message, context, writer in
                    try await gate.count {
                        if message.readableBytes > 4 { try writer.sendHeaders(context.metadata) }
                        for byte in message.readableBytesView.prefix(16) {
                            try await writer.write(large.getSlice(at: 0, length: Int(byte) * 256) ?? ByteBuffer())
                        }
                        writer.setTrailingMetadata(context.metadata)
                    }
                },
                .serverStreaming("Watch", endsAtDrain: true) { message, _, writer in
                    try await gate.count {
                        while true {
                            try await writer.write(message)
                            try await gate.wait(stubborn: false)
                        }
                    }
                },
                .clientStreaming("Collect") { messages, _ in
                    try await gate.count {
                        var count = 0
                        for try await message in messages { count += message.readableBytes }
                        return RPCReply(message: ByteBuffer(string: "\(count)"))
                    }
                },
                .bidirectional("Chat") { messages, _, writer in
                    try await gate.count { for try await message in messages { try await writer.write(message) } }
                },
                .bidirectional("Slow") { messages, _, writer in
                    try await gate.count {
                        try await gate.wait(stubborn: true)
                        for try await message in messages {
                            try await writer.write(message)
                            try await gate.wait(stubborn: false)
                        }
                    }
                },
                .unaryAtOnce("AtOnce") { message, _ in
                    guard message.readableBytes != 1 else { throw RPCError(.notFound, String(buffer: message)) }
                    return RPCReply(message: message, compression: .always)
                },
                .serverStreaming("Stay", endsAtDrain: true, staysOnEventLoop: true) { message, _, writer in
                    try await gate.count {
                        for byte in message.readableBytesView {
                            try await writer.write(message, compression: byte & 1 == 0 ? .always : .never)
                            try await gate.wait(stubborn: byte & 2 == 0)
                        }
                    }
                },
                // Lets messages wait, and takes them all.
                .clientStreaming("Pack") { messages, _ in
                    try await gate.count {
                        try await gate.wait(stubborn: false)
                        for try await message in messages where message.readableBytes == 1 {
                            return RPCReply(message: large)
                        }
                        return RPCReply(message: ByteBuffer())
                    }
                },
                .bidirectional("Talk") { _, _, writer in
                    try await gate.count { for _ in 0..<4 { try await writer.write(large) } }
                },
            ])
    }
}
