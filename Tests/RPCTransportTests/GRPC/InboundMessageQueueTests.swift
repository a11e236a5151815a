import NIOCore
import Testing

@testable import RPCTransport

@Suite struct InboundMessageQueueTests {
    private static func message(_ number: Int) -> MessageAssembler.Message {
        // Small ones, with larger ones between them that stay apart.
        let length = number % 50 == 49 ? 300 + number : number % 7 * 40
        return MessageAssembler.Message(
            bytes: ByteBuffer(repeating: UInt8(truncatingIfNeeded: number), count: length),
            compression: number % 3 == 0 ? .gzip : nil, credit: number % 11 == 0 ? 70_000 + number : number)
    }

    private static func expect(_ message: MessageAssembler.Message?, _ number: Int) {
        let expected = Self.message(number)
        #expect(message?.bytes == expected.bytes)
        #expect(message?.compression == expected.compression)
        #expect(message?.credit == expected.credit)
    }

    /// Whatever is packed comes out as it was, and in its order.
    @Test(arguments: [1, 17, 100, 1000]) func orderAndContent(most: Int) {
        var queue = InboundMessageQueue()
        var appended = 0
        var taken = 0
        while taken < 3000 {
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

    /// A window of 64 KiB full of messages of no or one byte takes about as much memory as it took on the wire.
    @Test(arguments: [0, 1]) func smallMessagesTakeLittle(length: Int) {
        var queue = InboundMessageQueue()
        let count = 65535 / (5 + length)
        let message = MessageAssembler.Message(
            bytes: ByteBuffer(repeating: 7, count: length), compression: nil, credit: 5 + length)
        for _ in 0..<count { queue.append(message) }
        #expect(queue.slots < 50)
        #expect(queue.takeAll().count == count)
    }

    /// What the reader keeps of a pack is no more than that pack.
    @Test func packsAreSmall() {
        var queue = InboundMessageQueue()
        for number in 0..<1000 { queue.append(Self.message(number)) }
        for message in queue.takeAll() where message.bytes.readableBytes <= 256 {
            #expect(message.bytes.storageCapacity <= 4096)
        }
    }
}
