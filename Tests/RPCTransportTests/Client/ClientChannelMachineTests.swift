import NIOCore
import Testing

@testable import RPCTransport

@Suite struct ClientChannelMachineTests {
    private static let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
    private static let error = RPCError(.unavailable, "no way")

    /// The defaults of grpc/doc/connection-backoff.md.
    private var machine = ClientChannelMachine(
        backoff: ExponentialBackoff(initial: .seconds(1), maximum: .seconds(120), factor: 1.6, jitter: 0.2))

    private static func name(_ action: ClientChannelMachine.OnCall) -> String {
        switch action {
        case .send: "send"
        case .wait: "wait"
        case .connect: "connect"
        case .waitUntil: "waitUntil"
        case .fail(let error): "fail \(error.message)"
        }
    }

    private mutating func call(at now: NIODeadline = Self.start, waits: Bool = false) -> String {
        Self.name(self.machine.callArrived(waitsForReady: waits, now: now))
    }

    private mutating func makeReady() {
        _ = self.call()
        expect(self.machine.connected())
    }

    @Test mutating func theFirstCallConnectsAndTheOthersWait() {
        expectEqual(self.call(), "connect")
        expectEqual(self.call(), "wait")
        expect(self.machine.connected())
        expectEqual(self.call(), "send")
    }

    @Test mutating func attemptsGrowRarer() {
        var now = Self.start
        var waits: [Duration] = []
        for _ in 0..<14 {
            expectEqual(self.call(at: now), "connect")
            guard let until = self.machine.connectFailed(Self.error, now: now, random: 0.5) else {
                Issue.record("nobody wanted to know")
                return
            }
            waits.append(.nanoseconds((until - now).nanoseconds))
            expectEqual(self.call(at: now), "fail no way")
            expectEqual(self.call(at: now, waits: true), "waitUntil")
            expectEqual(self.machine.backoffEnded(now: now), false)
            now = until
        }
        #expect(waits.prefix(3) == [.seconds(1), .milliseconds(1600), .milliseconds(2560)])
        #expect(waits.last == .seconds(120))
    }

    @Test(arguments: [(0.0, 800), (1.0, 1200)]) mutating func jitter(random: Double, milliseconds: Int64) {
        _ = self.call()
        let until = self.machine.connectFailed(Self.error, now: Self.start, random: random)
        #expect(until == Self.start + .milliseconds(milliseconds))
    }

    @Test mutating func waitersHaveItTriedAgainInTime() {
        _ = self.call()
        let until = self.machine.connectFailed(Self.error, now: Self.start, random: 0.5) ?? .distantFuture
        expect(self.machine.backoffEnded(now: until))
        #expect(self.machine.isConnecting)
        expectEqual(self.call(at: until), "wait")
    }

    @Test mutating func aUsefulConnectionThatIsLostCostsNothing() {
        self.makeReady()
        let idle = self.machine.retired(Self.error, wasUseful: true, callsWait: false, now: Self.start, random: 0)
        guard case .none = idle else {
            Issue.record("\(idle)")
            return
        }
        expectEqual(self.call(), "connect")
        expect(self.machine.connected())
        let waiting = self.machine.retired(Self.error, wasUseful: true, callsWait: true, now: Self.start, random: 0)
        guard case .connect = waiting else {
            Issue.record("\(waiting)")
            return
        }
        expectEqual(self.call(), "wait")
    }

    /// Otherwise a server that accepts and hangs up would be asked as fast as the network allows.
    @Test mutating func theSecondConnectionWithoutUseCountsAsFailed() {
        self.makeReady()
        // Once may be bad luck: a server that is just going away.
        _ = self.machine.retired(Self.error, wasUseful: false, callsWait: true, now: Self.start, random: 0.5)
        #expect(self.machine.isConnecting)
        expect(self.machine.connected())
        let action = self.machine.retired(Self.error, wasUseful: false, callsWait: true, now: Self.start, random: 0.5)
        guard case .backOff(let until) = action else {
            Issue.record("\(action)")
            return
        }
        #expect(until == Self.start + .seconds(1))
        expectEqual(self.call(), "fail no way")
        expectEqual(self.call(at: until), "connect")
        expect(self.machine.connected())
        let again = self.machine.retired(Self.error, wasUseful: false, callsWait: true, now: until, random: 0.5)
        guard case .backOff(let later) = again else {
            Issue.record("\(again)")
            return
        }
        #expect(later == until + .milliseconds(1600))
    }

    @Test mutating func nothingLeadsOutOfClosed() {
        _ = self.call()
        self.machine.close()
        expectEqual(self.machine.connected(), false)
        expectEqual(self.machine.connectFailed(Self.error, now: Self.start, random: 0), nil)
        expectEqual(self.machine.backoffEnded(now: .distantFuture), false)
        expectEqual(self.call(waits: true), "fail the client was closed")
    }
}
