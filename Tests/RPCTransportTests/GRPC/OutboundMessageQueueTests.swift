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
