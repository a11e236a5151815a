import Glibc
import NIOCore
import Testing

@testable import RPCTransport

/// Messages by themselves: what comes out is what went in, and never more than allowed.
@Suite struct CompressionTests {
    private static func noise(_ count: Int) -> ByteBuffer {
        var state: UInt32 = 1
        return ByteBuffer(
            bytes: (0..<count).map { _ in
                state = state &* 1_664_525 &+ 1_013_904_223
                return UInt8(state >> 24)
            })
    }

    @Test(arguments: RPCCompression.allCases, [0, 1, 511, 512, 513, 40_000, 1_000_000])
    func roundTrip(compression: RPCCompression, size: Int) throws {
        for message in [ByteBuffer(repeating: 7, count: size), Self.noise(size)] {
            let deflated = try #require(Deflater.deflate(message, compression))
            // At the limit exactly, and one below it.
            let inflated = try Inflater.inflate(deflated, compression, limit: size)
            #expect(inflated == message)
            guard size > 0 else { continue }
            #expect(throws: Inflater.Failure.tooLarge) {
                _ = try Inflater.inflate(deflated, compression, limit: size - 1)
            }
        }
    }

    /// 64 MiB in 64 KiB: refused after a mebibyte, with memory for little more than that.
    @Test(arguments: RPCCompression.allCases) func bombsAreDefused(compression: RPCCompression) throws {
        let bomb = try #require(Deflater.deflate(ByteBuffer(repeating: 0, count: 64 << 20), compression))
        let message = MessageAssembler.Message(bytes: bomb, compression: compression, credit: 0)
        let error = #expect(throws: RPCError.self) { _ = try message.decoded(limit: 1 << 20, side: "server") }
        #expect(error?.code == .resourceExhausted)
        // Given up at the limit: the whole costs 64 times as much.
        let cost = Self.processorTime { _ = try? message.decoded(limit: 1 << 20, side: "server") }
        let whole = try Self.processorTime { _ = try message.decoded(limit: 64 << 20, side: "server") }
        #expect(cost < whole / 4)
    }

    /// Of this thread.
    private static func processorTime(_ body: () throws -> Void) rethrows -> Duration {
        func now() -> Duration {
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
        }
        let begin = now()
        try body()
        return now() - begin
    }

    @Test(arguments: RPCCompression.allCases) func brokenMessages(compression: RPCCompression) throws {
        let whole = try #require(Deflater.deflate(Self.noise(1000), compression))
        var trailing = whole
        trailing.writeBytes([0])
        let short = try #require(whole.getSlice(at: 0, length: whole.readableBytes - 1))
        let other = try #require(Deflater.deflate(Self.noise(1000), compression == .gzip ? .deflate : .gzip))
        for bytes in [trailing, short, other, ByteBuffer(), ByteBuffer(string: "plain")] {
            let message = MessageAssembler.Message(bytes: bytes, compression: compression, credit: 0)
            let error = #expect(throws: RPCError.self) { _ = try message.decoded(limit: 1 << 20, side: "server") }
            #expect(error?.code == .internal)
        }
    }

    @Test(arguments: [
        ("gzip", RPCCompression.gzip), ("identity, deflate, gzip", .gzip), ("deflate", .deflate),
        ("identity,deflate", .deflate), (" deflate ,\tidentity", .deflate), ("identity", nil), ("", nil), (",,", nil),
        ("x-gzip", nil), ("snappy,gzip,", .gzip), ("gzip;q=1", nil),
    ])
    func acceptLists(text: String, expected: RPCCompression?) {
        let preferred = Array(text.utf8).withUnsafeBufferPointer { RPCCompression.preferred(in: $0) }
        #expect(preferred == expected)
    }

    @Test func whatIsCompressed() {
        let message = ByteBuffer(repeating: 1, count: 1000)
        let off = MessageEncoder(compression: .gzip)
        #expect(!off.encode(message, .automatic).isCompressed)
        #expect(off.encode(message, .always).isCompressed)
        #expect(!MessageEncoder().encode(message, .always).isCompressed)
        let large = MessageEncoder(compression: .gzip, automaticBytes: 1000)
        #expect(large.encode(message, .automatic).isCompressed)
        #expect(!large.encode(message, .never).isCompressed)
        #expect(!large.encode(ByteBuffer(repeating: 1, count: 999), .automatic).isCompressed)
        // What would only grow goes as it is.
        #expect(!large.encode(Self.noise(1000), .automatic).isCompressed)
    }
}
