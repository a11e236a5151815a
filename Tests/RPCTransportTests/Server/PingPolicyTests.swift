import NIOCore
import Testing

@testable import RPCTransport

@Suite struct PingPolicyTests {
    private static func at(_ seconds: UInt64) -> NIODeadline { .uptimeNanoseconds(seconds * 1_000_000_000) }

    @Test func thirdStrikeIsOneTooMany() {
        var policy = PingPolicy(minimumInterval: .seconds(10))
        let answers = (100..<104).map { (second: UInt64) in policy.receivedPing(at: Self.at(second), hasCalls: true) }
        #expect(answers == [false, false, false, true])
    }

    @Test func slowPingsAreFine() {
        var policy = PingPolicy(minimumInterval: .seconds(10))
        let answers = (0..<100).map { (number: UInt64) in policy.receivedPing(at: Self.at(10 * number), hasCalls: true)
        }
        #expect(!answers.contains(true))
    }

    /// A client that PINGs as often as it may, with a timer and a network that are never exact.
    @Test func jitterIsNoStrike() {
        var policy = PingPolicy(minimumInterval: .seconds(10))
        let answers = (0..<100).map { (number: UInt64) in
            let jitter: UInt64 = number.isMultiple(of: 2) ? 200_000_000 : 0
            return policy.receivedPing(at: .uptimeNanoseconds(10_000_000_000 * number + jitter), hasCalls: true)
        }
        #expect(!answers.contains(true))
    }

    /// Without calls, and where that isn't permitted, the first PING is fine and the next is due in two hours.
    @Test(arguments: [(true, [false, false, false, false, false]), (false, [false, false, false, true, false])])
    func pingsWithoutCalls(permits: Bool, expected: [Bool]) {
        var policy = PingPolicy(minimumInterval: .seconds(10), permitsPingsWithoutCalls: permits)
        let answers = (0..<5).map { (number: UInt64) in
            policy.receivedPing(at: Self.at(3600 * number), hasCalls: false)
        }
        #expect(answers == expected)
        let later = policy.receivedPing(at: Self.at(3600 * 6), hasCalls: false)
        #expect(!later)
    }

    /// Clients that measure the bandwidth PING in answer to each DATA frame.
    @Test func sentFramesForgive() {
        var policy = PingPolicy(minimumInterval: .seconds(10))
        let answers = (0..<100).map { (number: UInt64) in
            // As many as are put up with, and then a frame.
            defer { if number % 3 == 2 { policy.sentHeadersOrData() } }
            return policy.receivedPing(at: .uptimeNanoseconds(number), hasCalls: true)
        }
        #expect(!answers.contains(true))
    }
}
