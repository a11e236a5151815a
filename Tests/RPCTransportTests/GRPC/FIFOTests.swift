import Testing

@testable import RPCTransport

@Suite struct FIFOTests {
    @Test func inOrder() {
        var queue = FIFO<Int>()
        #expect(queue.popFirst() == nil)
        for number in 0..<100 { queue.append(number) }
        #expect((0..<60).allSatisfy { queue.popFirst() == $0 })
        #expect(queue.count == 40)
        #expect(queue.takeAll() == Array(60..<100))
        #expect(queue.isEmpty)
    }

    /// A reader that keeps up but is always one message behind: the queue is never empty, and once grew by a place for
    /// every message that ever went through it, as long as the call lasted.
    @Test func neverEmptyDoesNotGrow() {
        var queue = FIFO<Int>()
        queue.append(0)
        for number in 1...100_000 {
            queue.append(number)
            #expect(queue.popFirst() == number - 1)
        }
        #expect(queue.slots <= 66)
    }
}
