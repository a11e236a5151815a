import NIOCore

/// Which PINGs of a client are too many (gRFC A8, server side).
///
/// Clients PING in answer to DATA to measure the bandwidth, so that every HEADERS or DATA frame on the wire forgives.
struct PingPolicy {
    /// The shortest time between two PINGs without anything sent in between.
    let minimumInterval: TimeAmount
    /// Whether that is enough on a connection without calls too; else it is two hours there.
    let permitsPingsWithoutCalls: Bool
    static let minimumIntervalWithoutCalls = TimeAmount.hours(2)
    /// Too frequent PINGs that are put up with.
    static let maximumStrikes = 2

    private var strikes = 0
    /// Nil: the next PING is the first since something was sent, which is always allowed.
    private var lastPing: NIODeadline?

    init(minimumInterval: TimeAmount, permitsPingsWithoutCalls: Bool = true) {
        self.minimumInterval = minimumInterval
        self.permitsPingsWithoutCalls = permitsPingsWithoutCalls
    }

    mutating func sentHeadersOrData() {
        self.strikes = 0
        self.lastPing = nil
    }

    /// True, once, if this was one too many: GOAWAY(ENHANCE_YOUR_CALM, "too_many_pings").
    mutating func receivedPing(at now: NIODeadline, hasCalls: Bool) -> Bool {
        defer { self.lastPing = now }
        let interval =
            hasCalls || self.permitsPingsWithoutCalls ? self.minimumInterval : Self.minimumIntervalWithoutCalls
        // A tenth less passes: a client that PINGs exactly as often as it may has a timer and a network with jitter.
        guard let lastPing, now - lastPing < .nanoseconds(interval.nanoseconds / 10 * 9) else { return false }
        self.strikes += 1
        return self.strikes == Self.maximumStrikes + 1
    }
}
