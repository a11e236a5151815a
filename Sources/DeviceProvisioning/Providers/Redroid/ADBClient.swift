import NIOCore
import NIOPosix

/// Why the adb server did not do what it was asked.
enum ADBError: Error, Equatable {
    /// Nothing answers at the server's address.
    case unreachable
    /// The server said no, in its own words: the device is offline, not found, refuses.
    case failed(String)
    /// Not an adb server, or one that breaks its protocol.
    case malformed
    case timedOut
}

/// The adb server's own protocol ("smart socket"): a request is four hexadecimal digits of length and that many bytes;
/// the answer begins with OKAY or FAIL. Specified in AOSP, packages/modules/adb, `OVERVIEW.TXT` and `SERVICES.TXT`.
struct ADBClient: Sendable {
    let host: String
    let port: Int

    /// No answer that is of interest here is longer.
    private static let maximumAnswerBytes = 64 << 10

    /// The server's protocol version.
    func version(until deadline: ContinuousClock.Instant) async throws(ADBError) -> Int {
        let text = try await self.exchange(until: deadline) { stream in
            try await stream.request("host:version")
            return try await stream.readText()
        }
        guard let version = Int(text, radix: 16) else { throw .malformed }
        return version
    }

    /// Makes the server connect to a device over TCP; it stays connected for all its clients.
    func connect(to serial: String, until deadline: ContinuousClock.Instant) async throws(ADBError) {
        let answer = try await self.exchange(until: deadline) { stream in
            try await stream.request("host:connect:\(serial)")
            return try await stream.readText()
        }
        // The server says OKAY to the request whatever becomes of the connection, which only the text tells.
        guard answer.hasPrefix("connected to") || answer.hasPrefix("already connected to") else {
            throw .failed(answer)
        }
    }

    /// Makes the server forget a device. One that it doesn't know is fine.
    func disconnect(_ serial: String, until deadline: ContinuousClock.Instant) async throws(ADBError) {
        do {
            _ = try await self.exchange(until: deadline) { stream in
                try await stream.request("host:disconnect:\(serial)")
                return try await stream.readText()
            }
        } catch .failed {
            return
        }
    }

    /// Ends the server.
    func killServer(until deadline: ContinuousClock.Instant) async throws(ADBError) {
        _ = try await self.exchange(until: deadline) { stream in
            try await stream.request("host:kill")
            return ""
        }
    }

    /// Runs a command on the device and returns what it prints.
    func shell(_ command: String, on serial: String, until deadline: ContinuousClock.Instant) async throws(ADBError)
        -> String
    {
        try await self.exchange(until: deadline) { stream in
            try await stream.request("host:transport:\(serial)")
            try await stream.request("shell:\(command)")
            return try await stream.readToEnd()
        }
    }

    private func exchange(
        until deadline: ContinuousClock.Instant, _ body: @escaping @Sendable (inout ADBStream) async throws -> String
    ) async throws(ADBError) -> String {
        do {
            return try await TimeLimit.run(until: deadline) {
                let channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>
                do {
                    channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                        .connectTimeout(.seconds(5))
                        .connect(host: self.host, port: self.port) { channel in
                            channel.eventLoop.makeCompletedFuture {
                                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                            }
                        }
                } catch {
                    throw ADBError.unreachable
                }
                return try await channel.executeThenClose { inbound, outbound in
                    var stream = ADBStream(
                        inbound: inbound.makeAsyncIterator(), outbound: outbound,
                        maximumBytes: Self.maximumAnswerBytes)
                    return try await body(&stream)
                }
            }
        } catch let error as ADBError {
            throw error
        } catch is TimeLimit.Exceeded {
            throw .timedOut
        } catch is CancellationError {
            throw .timedOut
        } catch {
            throw .malformed  // the connection broke in mid-answer
        }
    }
}

/// One connection to the server.
private struct ADBStream {
    var inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    /// Of everything that the server sends on this connection.
    var maximumBytes: Int
    private var buffer = ByteBuffer()

    init(
        inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator,
        outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>, maximumBytes: Int
    ) {
        self.inbound = inbound
        self.outbound = outbound
        self.maximumBytes = maximumBytes
    }

    /// Sends a request and reads its OKAY.
    mutating func request(_ service: String) async throws {
        let digits = String(service.utf8.count, radix: 16)
        guard digits.utf8.count <= 4 else { throw ADBError.malformed }
        let length = String(repeating: "0", count: 4 - digits.utf8.count) + digits
        try await self.outbound.write(ByteBuffer(string: length + service))
        switch try await self.read(4) {
        case "OKAY": return
        case "FAIL": throw ADBError.failed(try await self.readText())
        default: throw ADBError.malformed
        }
    }

    /// Reads a text with its length before it.
    mutating func readText() async throws -> String {
        guard let length = Int(try await self.read(4), radix: 16), length >= 0 else { throw ADBError.malformed }
        return try await self.read(length)
    }

    mutating func readToEnd() async throws -> String {
        while try await self.readMore() {}
        return String(decoding: self.buffer.readableBytesView, as: UTF8.self)
    }

    private mutating func read(_ count: Int) async throws -> String {
        while self.buffer.readableBytes < count {
            guard try await self.readMore() else { throw ADBError.malformed }
        }
        guard let slice = self.buffer.readSlice(length: count) else { throw ADBError.malformed }
        return String(decoding: slice.readableBytesView, as: UTF8.self)
    }

    /// False at the end of the stream.
    private mutating func readMore() async throws -> Bool {
        guard var bytes = try await self.inbound.next() else { return false }
        self.maximumBytes -= bytes.readableBytes
        guard self.maximumBytes >= 0 else { throw ADBError.malformed }
        self.buffer.writeBuffer(&bytes)
        return true
    }
}
