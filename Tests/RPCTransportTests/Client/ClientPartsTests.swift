import NIOCore
import NIOPosix
import Testing

@testable import RPCTransport

@Suite struct ClientKeepaliveTests {
    private static let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)

    private static func at(_ seconds: Int64) -> NIODeadline { Self.start + .seconds(seconds) }

    private func expectCheck(
        _ result: (ClientKeepalive.Action, next: NIODeadline), _ action: ClientKeepalive.Action,
        _ next: NIODeadline? = nil, at location: SourceLocation = #_sourceLocation
    ) {
        #expect(result.0 == action, sourceLocation: location)
        if let next { #expect(result.next == next, sourceLocation: location) }
    }

    private static func keepalive(withoutCalls: Bool = false) -> ClientKeepalive {
        ClientKeepalive(interval: .seconds(30), timeout: .seconds(20), permitsWithoutCalls: withoutCalls)
    }

    @Test func silenceIsAskedAboutAndThenGivenUp() {
        var keepalive = Self.keepalive()
        expectCheck(keepalive.check(now: Self.at(0), lastRead: Self.at(0), hasCalls: true), .none, Self.at(30))
        expectCheck(keepalive.check(now: Self.at(30), lastRead: Self.at(10), hasCalls: true), .none, Self.at(40))
        expectCheck(keepalive.check(now: Self.at(40), lastRead: Self.at(10), hasCalls: true), .ping, Self.at(60))
        expectCheck(keepalive.check(now: Self.at(50), lastRead: Self.at(10), hasCalls: true), .none, Self.at(60))
        expectCheck(keepalive.check(now: Self.at(60), lastRead: Self.at(10), hasCalls: true), .giveUp)
    }

    @Test func anyByteCountsAsAnAnswer() {
        var keepalive = Self.keepalive()
        _ = keepalive.check(now: Self.at(30), lastRead: Self.at(0), hasCalls: true)
        expectCheck(keepalive.check(now: Self.at(50), lastRead: Self.at(31), hasCalls: true), .none, Self.at(61))
        expectCheck(keepalive.check(now: Self.at(61), lastRead: Self.at(31), hasCalls: true), .ping)
    }

    @Test func withoutCallsOnlyIfPermitted() {
        var forbidden = Self.keepalive()
        expectCheck(forbidden.check(now: Self.at(30), lastRead: Self.at(0), hasCalls: false), .none, Self.at(60))
        expectCheck(forbidden.check(now: Self.at(60), lastRead: Self.at(0), hasCalls: true), .ping)
        var permitted = Self.keepalive(withoutCalls: true)
        expectCheck(permitted.check(now: Self.at(30), lastRead: Self.at(0), hasCalls: false), .ping)
    }

    @Test func tenSecondsAreTheLeast() {
        var configuration = RPCClientConfiguration(port: 1)
        configuration.keepaliveInterval = .seconds(1)
        let channel = ClientChannel(
            configuration,
            loop: EventLoopContext(
                eventLoop: MultiThreadedEventLoopGroup.singleton.any()))
        #expect(channel.keepaliveInterval == .seconds(10))
        channel.keepaliveWasTooShort()
        #expect(channel.keepaliveInterval == .seconds(20))
    }
}

@Suite struct CallQueueTests {
    private final class Call {}

    @Test func firstInFirstOutAndBounded() {
        let calls = (0..<3).map { _ in Call() }
        var queue = CallQueue<Call>(limit: 2)
        expect(queue.append(calls[0]))
        expect(queue.append(calls[1]))
        expect(!queue.append(calls[2]))
        expect(queue.popFirst() === calls[0])
        expect(queue.append(calls[2]))
        expect(queue.popFirst() === calls[1])
        expect(queue.popFirst() === calls[2])
        expect(queue.popFirst() == nil)
        #expect(queue.isEmpty)
    }

    /// Calls come and go by their deadlines while the server lets nothing through.
    @Test func callsThatAreOverMakeRoom() {
        var queue = CallQueue<Call>(limit: 3)
        let first = Call()
        let last = Call()
        _ = queue.append(first)
        for _ in 0..<10_000 {
            let passing = Call()
            expect(queue.append(passing))
            queue.remove(passing)
        }
        _ = queue.append(last)
        queue.remove(Call())
        #expect(queue.count == 2)
        expect(queue.popFirst() === first)
        expect(queue.popFirst() === last)
    }

    @Test func someAreTakenOut() {
        let calls = (0..<4).map { _ in Call() }
        var queue = CallQueue<Call>(limit: 10)
        for call in calls { _ = queue.append(call) }
        queue.remove(calls[1])
        let taken = queue.removeAll { $0 === calls[0] || $0 === calls[3] }
        #expect(taken.map(ObjectIdentifier.init) == [calls[0], calls[3]].map(ObjectIdentifier.init))
        #expect(queue.count == 1)
        expect(queue.popFirst() === calls[2])
    }
}

@Suite struct AddressTests {
    @Test func theNextAddressIsTriedWhenOneFailsOrTakesLong() {
        var race = AddressRace(["a", "b", "c"])
        expectEqual(race.next(), "a")
        expectEqual(race.next(), "b")  // a takes long
        guard case .start("c") = race.failed() else {
            Issue.record("c is not tried")
            return
        }
        #expect(!race.hasMore)
        guard case .wait = race.failed() else {
            Issue.record("there is one under way")
            return
        }
        guard case .allFailed = race.failed() else {
            Issue.record("all have failed")
            return
        }
    }

    @Test func familiesTakeTurns() throws {
        let addresses = try ["::1", "::2", "::3", "127.0.0.1", "127.0.0.2"].map {
            try SocketAddress(ipAddress: $0, port: 1)
        }
        #expect(
            AddressResolver.interleaved(addresses).map(\.ipAddress)
                == ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3"])
    }

    @Test func numbersAndNamesAreResolved() throws {
        #expect(try AddressResolver.resolve("::1", port: 7).map(\.description) == ["[IPv6]::1:7"])
        let local = try AddressResolver.resolve("localhost", port: 7)
        #expect(!local.isEmpty && local.allSatisfy { $0.port == 7 })
        #expect(throws: AddressResolver.Failure.self) { try AddressResolver.resolve("no such host", port: 7) }
    }

    @Test func authorities() {
        #expect(RPCClientConfiguration(host: "::1", port: 7).effectiveAuthority == "[::1]:7")
        #expect(RPCClientConfiguration(host: "phones.example", port: 7).effectiveAuthority == "phones.example:7")
        var configuration = RPCClientConfiguration(port: 7)
        configuration.authority = "other"
        #expect(configuration.effectiveAuthority == "other")
    }
}
