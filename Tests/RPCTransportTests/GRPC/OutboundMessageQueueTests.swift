import NIOCore
import Testing

@testable import RPCTransport

@Suite struct OutboundMessageQueueTests {
    @Test(arguments: 1...14) func anyPieceSize(size: Int) {
        var queue = OutboundMessageQueue()
        #expect(queue.isEmpty && queue.isAtBoundary)
        var expected: [UInt8] = []
        for message in [[1, 2, 3], [], [4], Array(repeating: 5, count: 30)] as [[UInt8]] {
            let isCompressed = message.count == 3
            queue.append(OutboundMessage(bytes: ByteBuffer(bytes: message), isCompressed: isCompressed))
            expected += [isCompressed ? 1 : 0, 0, 0, 0, UInt8(message.count)] + message
        }
        #expect(queue.byteCount == expected.count)
        var read: [UInt8] = []
        while !queue.isEmpty {
            let count = min(size, queue.byteCount)
            read += [UInt8](unsafeUninitializedCapacity: count) { target, initialized in
                if let base = target.baseAddress { queue.read(size, into: base) }
                initialized = count
            }
        }
        #expect(read == expected)
        #expect(queue.isAtBoundary)
        queue.append(OutboundMessage(bytes: ByteBuffer(bytes: [9])))
        #expect(queue.byteCount == 6)
    }

    /// Small messages are charged for what keeping them takes; their bytes are credited as they leave (the writer of a large
    /// message need not wait for all of it), the rest with the last of them.
    @Test func charge() {
        var queue = OutboundMessageQueue()
        let messages = [0, 10].map { OutboundMessage(bytes: ByteBuffer(repeating: 1, count: $0)) }
        queue.append(messages)
        #expect(queue.charge == messages[0].charge + messages[1].charge)
        #expect(messages[0].charge > 50)
        withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { target in
            guard let base = target.baseAddress else { return }
            queue.read(4, into: base)
            #expect(queue.charge == messages[0].charge + messages[1].charge - 4)
            queue.read(1, into: base)
            #expect(queue.charge == messages[1].charge)
            queue.read(14, into: base)
            #expect(queue.charge == messages[1].charge - 14)
            queue.read(1, into: base)
        }
        #expect(queue.charge == 0)
    }

    @Test func boundaryAndDrop() {
        var queue = OutboundMessageQueue()
        queue.append(OutboundMessage(bytes: ByteBuffer(bytes: [1, 2, 3])))
        withUnsafeTemporaryAllocation(byteCount: 3, alignment: 1) { target in
            if let base = target.baseAddress { queue.read(3, into: base) }
        }
        #expect(!queue.isAtBoundary)
        queue.removeAll()
        #expect(queue.isEmpty && queue.isAtBoundary)
    }
}
