import NIOCore
import Testing

@testable import RPCTransport

@Suite struct MessageAssemblerTests {
    private static func frame(_ message: [UInt8], flag: UInt8 = 0) -> [UInt8] {
        [flag] + withUnsafeBytes(of: UInt32(message.count).bigEndian) { Array($0) } + message
    }

    @Test(arguments: 1...16) func anySplitGivesTheSameMessages(size: Int) throws {
        let messages: [[UInt8]] = [[1, 2, 3], [], Array(repeating: 9, count: 40), [7]]
        let bytes = messages.flatMap { Self.frame($0) }
        var assembler = MessageAssembler(limit: 40, side: "server")
        var result: [[UInt8]] = []
        var credit = 0
        for start in stride(from: 0, to: bytes.count, by: size) {
            var chunk = ByteBuffer(bytes: bytes[start..<min(start + size, bytes.count)])
            while let message = try assembler.next(from: &chunk) {
                result.append(Array(message.bytes.readableBytesView))
                credit += message.credit
            }
            #expect(chunk.readableBytes == 0)
            credit += assembler.takeCreditOfIncompleteMessage()
        }
        #expect(result == messages)
        #expect(assembler.isAtBoundary)
        // Every byte is given back exactly once.
        #expect(credit == bytes.count)
    }

    @Test(arguments: [1000, 16_384, 65_536, 100_000]) func largeMessages(size: Int) throws {
        let message = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        let bytes = Self.frame(message) + Self.frame([1])
        var assembler = MessageAssembler(limit: 300_000, side: "server")
        var result: [[UInt8]] = []
        for start in stride(from: 0, to: bytes.count, by: size) {
            var chunk = ByteBuffer(bytes: bytes[start..<min(start + size, bytes.count)])
            while let message = try assembler.next(from: &chunk) {
                result.append(Array(message.bytes.readableBytesView))
            }
        }
        #expect(result == [message, [1]])
    }

    @Test func limitIsCheckedOnThePrefix() throws {
        var assembler = MessageAssembler(limit: 10, side: "server")
        var exact = ByteBuffer(bytes: Self.frame(Array(repeating: 0, count: 10)))
        let whole = try assembler.next(from: &exact)
        #expect(whole != nil)
        var prefix = ByteBuffer(bytes: [0, 0, 0, 0, 11])
        let refusal = RPCError(.resourceExhausted, "the message has 11 bytes; the server receives at most 10")
        #expect(throws: refusal.counted(as: .messageTooLarge)) { try assembler.next(from: &prefix) }
    }

    @Test(arguments: [1, 2, 255] as [UInt8]) func flagsThatNobodyAnnounced(flag: UInt8) throws {
        var assembler = MessageAssembler(limit: 10, side: "server")
        var chunk = ByteBuffer(bytes: [flag, 0, 0, 0, 0])
        do {
            _ = try assembler.next(from: &chunk)
            Issue.record("flag \(flag) was accepted")
        } catch {
            #expect(error.code == .internal)
        }
    }

    /// A small message must not keep the large read that it came in alive.
    @Test func smallMessagesAreCopied() throws {
        var large = ByteBufferAllocator().buffer(capacity: 65536)
        large.writeBytes(Self.frame([1, 2, 3]))
        large.writeRepeatingByte(0, count: 60000)
        var assembler = MessageAssembler(limit: 100_000, side: "server")
        let message = try assembler.next(from: &large)
        #expect(message?.bytes.storageCapacity ?? .max < 1024)
    }
}
