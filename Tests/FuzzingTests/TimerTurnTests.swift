import NIOCore
import NIOEmbedded
import Testing

@testable import RPCTransport

/// However many timers are due at once, a bounded part of them fires before others have their turn.
@Suite struct TimerTurnTests {
    private final class Node: TimerNode {
        var timerIndex = -1
        var timerDeadline = NIODeadline.distantFuture
        var isFired = false
        func timerFired(at now: NIODeadline) { self.isFired = true }
    }

    @Test func timersFireInTurns() {
        let eventLoop = EmbeddedEventLoop()
        defer { try? eventLoop.syncShutdownGracefully() }
        let context = EventLoopContext(eventLoop: eventLoop)
        let nodes = (0..<1000).map { _ in Node() }
        for node in nodes { context.schedule(node, at: .uptimeNanoseconds(1)) }
        var fired = 0
        var turns: [Int] = []
        let limit = NIODeadline.now() + .seconds(10)
        while fired < nodes.count, .now() < limit {
            // No further than now: what is put off comes later.
            eventLoop.advanceTime(to: .now())
            let count = nodes.count { $0.isFired }
            turns.append(count - fired)
            fired = count
        }
        #expect(fired == nodes.count)
        #expect(turns.allSatisfy { $0 <= 8 }, "\(turns.max() ?? 0)")
    }
}
