import NIOCore
import Testing

@testable import RPCTransport

@Suite struct InboundMessageQueueTests {
    private static func message(_ number: Int) -> MessageAssembler.Message {
        // Small ones, with larger ones between them, and one that is too large for a pack.
        let length = number % 50 == 49 ? 300 + number : number % 7 * 40
        return MessageAssembler.Message(
            bytes: ByteBuffer(repeating: UInt8(truncatingIfNeeded: number), count: length),
            compression: [nil, .gzip, .deflate][number % 3], credit: number % 11 == 0 ? 70_000 + number : number)
    }

    private static func expect(_ message: MessageAssembler.Message?, _ number: Int) {
        let expected = Self.message(number)
        #expect(message?.bytes == expected.bytes)
        #expect(message?.compression == expected.compression)
        #expect(message?.credit == expected.credit)
    }

    /// Whatever is packed comes out as it was, and in its order.
    @Test(arguments: [1, 100, 700, 3000]) func orderAndContent(most: Int) {
        var queue = InboundMessageQueue()
        var (appended, taken) = (0, 0)
        while taken < 4000 {
            while appended < taken + most {
                queue.append(Self.message(appended))
                appended += 1
            }
            for _ in 0...most / 3 {
                Self.expect(queue.popFirst(), taken)
                taken += 1
            }
        }
        for message in queue.takeAll() {
            Self.expect(message, taken)
            taken += 1
        }
        #expect(taken == appended)
        #expect(queue.popFirst() == nil)
    }

    /// A window of 64 KiB full of empty messages takes about as much memory as it took on the wire.
    @Test func emptyMessagesTakeLittle() {
        var queue = InboundMessageQueue()
        let empty = MessageAssembler.Message(bytes: ByteBuffer(), compression: nil, credit: 5)
        for _ in 0..<13_107 { queue.append(empty) }
        #expect(queue.slots < 300)
        #expect(queue.takeAll().count == 13_107)
    }
}
