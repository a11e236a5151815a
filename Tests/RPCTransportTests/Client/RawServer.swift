import NIOCore
import NIOPosix
import Synchronization

@testable import RPCTransport

/// A server that says on each of its connections what a test wants it to say, frame by frame, and a client of it.
///
/// - Parameter script: what happens on a connection, and its number. The connection is closed when it returns.
func withRawServer(
    configureClient: @Sendable (inout RPCClientConfiguration) -> Void = { _ in },
    script: @escaping @Sendable (inout RawConnection, _ number: Int) async throws -> Void,
    _ body: @escaping @Sendable (RPCClient) async throws -> Void
) async throws {
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        // A client that has said its last word does not end the connection: the script's end does.
        .childChannelOption(.allowRemoteHalfClosure, value: true)
        .bind(host: "127.0.0.1", port: 0) { channel in
            channel.eventLoop.makeCompletedFuture {
                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
            }
        }
    var configuration = RPCClientConfiguration(port: listener.channel.localAddress?.port ?? 0)
    configuration.initialBackoff = .milliseconds(100)
    configuration.connectTimeout = .seconds(10)
    configureClient(&configuration)
    let client = RPCClient(configuration)
    try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
            try await listener.executeThenClose { connections in
                try await withThrowingDiscardingTaskGroup { group in
                    var number = 0
                    for try await channel in connections {
                        number += 1
                        let number = number
                        group.addTask {
                            // A client that hangs up on its script is a test's business, not the server's.
                            try? await channel.executeThenClose { inbound, outbound in
                                var connection = RawConnection(
                                    inbound: inbound.makeAsyncIterator(), outbound: outbound)
                                try await script(&connection, number)
                            }
                        }
                    }
                    // The listener is closed: no connection is on its way that nobody would end.
                    group.cancelAll()
                }
            }
        }
        group.addTask {
            let result: Result<Void, any Error>
            do {
                result = .success(try await body(client))
            } catch {
                result = .failure(error)
            }
            await client.close()
            try? await listener.channel.close()
            try result.get()
        }
        // The body ends first, unless the server fails.
        defer { group.cancelAll() }
        while try await group.next() != nil {}
    }
}

/// One connection of a `RawServer`.
struct RawConnection {
    struct Frame {
        var type: UInt8
        var flags: UInt8
        var stream: UInt32
        var payload: ByteBuffer
    }

    enum FrameType {
        static let data: UInt8 = 0, headers: UInt8 = 1, reset: UInt8 = 3, settings: UInt8 = 4, ping: UInt8 = 6
        static let goAway: UInt8 = 7
    }

    var inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    private var buffer = ByteBuffer()

    init(
        inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator,
        outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    ) {
        self.inbound = inbound
        self.outbound = outbound
    }

    // MARK: Reading

    /// Reads the preface and sends SETTINGS.
    mutating func handshake(_ settings: [(UInt16, UInt32)] = []) async throws {
        while self.buffer.readableBytes < 24 { try await self.readMore() }
        self.buffer.moveReaderIndex(forwardBy: 24)
        var payload = ByteBuffer()
        for (name, value) in settings {
            payload.writeInteger(name)
            payload.writeInteger(value)
        }
        try await self.send(FrameType.settings, 0, 0, payload)
    }

    private mutating func readMore() async throws {
        guard let more = try await self.inbound.next() else { throw ChannelError.eof }
        self.buffer.writeImmutableBuffer(more)
    }

    /// The next frame of that type; others are skipped, SETTINGS acknowledged.
    mutating func next(_ type: UInt8) async throws -> Frame {
        while true {
            while self.buffer.readableBytes < 9 { try await self.readMore() }
            let length = Int(self.buffer.getInteger(at: self.buffer.readerIndex, as: UInt32.self) ?? 0) >> 8
            while self.buffer.readableBytes < 9 + length { try await self.readMore() }
            guard var head = self.buffer.readSlice(length: 9), let payload = self.buffer.readSlice(length: length),
                head.readSlice(length: 3) != nil, let kind = head.readInteger(as: UInt8.self),
                let flags = head.readInteger(as: UInt8.self), let stream = head.readInteger(as: UInt32.self)
            else { throw ChannelError.eof }
            if kind == FrameType.settings, flags == 0 { try await self.send(FrameType.settings, 1, 0) }
            if kind == type { return Frame(type: kind, flags: flags, stream: stream, payload: payload) }
        }
    }

    /// The stream of the next request.
    mutating func nextRequest() async throws -> UInt32 { try await self.next(FrameType.headers).stream }

    /// Reads until the client hangs up.
    mutating func waitForEnd() async throws {
        while try await self.inbound.next() != nil {}
    }

    // MARK: Writing

    func send(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: ByteBuffer = ByteBuffer()) async throws {
        try await self.outbound.write(Self.frame(type, flags, stream, payload))
    }

    static func frame(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: ByteBuffer) -> ByteBuffer {
        var frame = ByteBuffer()
        frame.writeInteger(UInt32(payload.readableBytes) << 8 | UInt32(type))
        frame.writeInteger(flags)
        frame.writeInteger(stream)
        frame.writeImmutableBuffer(payload)
        return frame
    }

    func headers(_ stream: UInt32, _ fields: [(String, String)], end: Bool = false) async throws {
        try await self.send(FrameType.headers, end ? 5 : 4, stream, Self.block(fields))
    }

    /// Literal fields that are not indexed (RFC 7541, section 6.2.2).
    static func block(_ fields: [(String, String)]) -> ByteBuffer {
        var block = ByteBuffer()
        for (name, value) in fields {
            block.writeInteger(UInt8(0))
            for text in [name, value] {
                var rest = text.utf8.count
                if rest < 127 {
                    block.writeInteger(UInt8(rest))
                } else {
                    block.writeInteger(UInt8(127))
                    rest -= 127
                    while rest >= 128 {
                        block.writeInteger(UInt8(rest % 128 + 128))
                        rest /= 128
                    }
                    block.writeInteger(UInt8(rest))
                }
                block.writeString(text)
            }
        }
        return block
    }

    static let responseHeaders = [(":status", "200"), ("content-type", "application/grpc")]

    func data(_ stream: UInt32, _ bytes: [UInt8], end: Bool = false) async throws {
        try await self.send(FrameType.data, end ? 1 : 0, stream, ByteBuffer(bytes: bytes))
    }

    /// A whole answer with one empty message.
    func answer(_ stream: UInt32) async throws {
        try await self.headers(stream, Self.responseHeaders)
        try await self.data(stream, [0, 0, 0, 0, 0])
        try await self.headers(stream, [("grpc-status", "0")], end: true)
    }

    func reset(_ stream: UInt32, _ code: UInt32) async throws {
        try await self.send(FrameType.reset, 0, stream, ByteBuffer(integer: code))
    }

    func goAway(last: UInt32, code: UInt32 = 0, _ debug: String = "") async throws {
        var payload = ByteBuffer(integer: last)
        payload.writeInteger(code)
        payload.writeString(debug)
        try await self.send(FrameType.goAway, 0, 0, payload)
    }
}

extension RPCClient {
    /// Looks at the client's inside, on its event loop.
    func look<T: Sendable>(_ body: @escaping @Sendable (ClientChannel) -> T) async -> T? {
        let channel = self.channel
        return try? await channel.loop.eventLoop.submit { body(channel) }.get()
    }
}

/// Waits until the condition holds; false after ten seconds.
func soon(_ condition: () async -> Bool?) async -> Bool {
    for _ in 0..<1000 {
        if await condition() == true { return true }
        try? await Task.sleep(for: .milliseconds(10))
    }
    return false
}
