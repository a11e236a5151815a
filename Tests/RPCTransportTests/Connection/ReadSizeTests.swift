import NIOCore
import NIOPosix
import Testing

@testable import RPCTransport

/// How much is read in a turn, and into what.
@Suite struct ReadSizeTests {
    @Test func largeMessageComesInFewReads() {
        var size = ReadSize()
        var sizes: [Int] = []
        for _ in 0..<5 {
            sizes.append(size.bytes)
            size.hasRead(size.bytes, work: size.bytes / 16384 + 1)
        }
        #expect(sizes == [4096, 16384, 65536, 131_072, 131_072])
    }

    /// Frames of 13 bytes: what a turn does is bounded, whatever the turn before did.
    @Test func floodsGetTheSmallestReads() {
        var size = ReadSize()
        for _ in 0..<4 { size.hasRead(size.bytes, work: 1) }
        #expect(size.bytes == ReadSize.largest)
        size.hasRead(size.bytes, work: size.bytes / 13)
        #expect(size.bytes == ReadSize.smallest)
        size.hasRead(0, work: 0)
        #expect(size.bytes == ReadSize.smallest)
    }

    /// Thirty-two small calls are a read, and so are twice as many.
    @Test func manyCallsAreReadTogether() {
        var size = ReadSize()
        for _ in 0..<4 { size.hasRead(3200, work: 96) }
        #expect(size.bytes > 2 * 3200)
    }

    /// A buffer is as large as was asked for, though its memory may be larger, and that is used again once nobody keeps
    /// what came in it; what somebody keeps stays as it is.
    @Test func readBufferIsLent() throws {
        let loop = EventLoopContext(eventLoop: MultiThreadedEventLoopGroup.singleton.next())
        func read(_ count: Int, _ byte: UInt8) -> ByteBuffer {
            var buffer = loop.lendReadBuffer(count)
            #expect(buffer.readableBytes == 0)
            #expect(buffer.writableBytes == count)
            buffer.writeRepeatingByte(byte, count: count)
            #expect(buffer.writableBytes == 0)
            loop.returnReadBuffer(buffer)
            return buffer
        }
        func address(_ buffer: ByteBuffer) -> UnsafeRawPointer? {
            buffer.withVeryUnsafeBytes { UnsafeRawPointer($0.baseAddress) }
        }
        let first = address(read(65536, 1))
        #expect(address(read(4096, 2)) == first)
        let kept = read(8192, 3)
        #expect(address(kept) == first)
        #expect(address(read(8192, 4)) != first)
        #expect(kept.readableBytesView.allSatisfy { $0 == 3 })
        // Two are never lent at once.
        var one = loop.lendReadBuffer(4096)
        var other = loop.lendReadBuffer(4096)
        one.writeRepeatingByte(5, count: 4096)
        other.writeRepeatingByte(6, count: 4096)
        #expect(one.readableBytesView.allSatisfy { $0 == 5 })
    }

    /// The first read is into a buffer of the connection's own, which its channel keeps.
    @Test func firstReadIsSmall() {
        let loop = EventLoopContext(eventLoop: MultiThreadedEventLoopGroup.singleton.next())
        let connection = HTTP2Connection(loop: loop, role: .server, configuration: HTTP2Configuration())
        let reads = ConnectionReads(connection: connection)
        #expect(reads.buffer(allocator: ByteBufferAllocator()).writableBytes == 256)
    }
}
