import NIOCore
import Testing

@testable import RPCTransport

@Suite struct TimerQueueTests {
    private final class Node: TimerNode {
        var timerIndex = -1
        var timerDeadline = NIODeadline.distantFuture
        func timerFired(at now: NIODeadline) {}
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func comesOutInOrder(seed: UInt64) {
        var random = seed
        func next(_ bound: Int) -> Int {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(random >> 33) % bound
        }
        var queue = TimerQueue()
        var nodes = (0..<300).map { _ in Node() }
        for node in nodes { queue.schedule(node, at: .uptimeNanoseconds(UInt64(next(1000)))) }
        for _ in 0..<100 {
            let node = nodes.remove(at: next(nodes.count))
            queue.cancel(node)
            queue.cancel(node)
            #expect(node.timerIndex == -1)
        }
        for _ in 0..<50 { queue.schedule(nodes[next(nodes.count)], at: .uptimeNanoseconds(UInt64(next(1000)))) }
        #expect(queue.count == 200)
        var last = NIODeadline.uptimeNanoseconds(0)
        while let node = queue.popDue(at: .uptimeNanoseconds(2000)) {
            #expect(node.timerDeadline >= last)
            last = node.timerDeadline
        }
        #expect(queue.count == 0)
    }
}
