import NIOCore

/// Which PINGs of a client are too many (gRFC A8, server side).
///
/// Clients PING in answer to DATA to measure the bandwidth, so that every HEADERS or DATA frame on the wire forgives.
struct PingPolicy {
    /// The shortest time between two PINGs without anything sent in between.
    let minimumInterval: TimeAmount
    /// Too frequent PINGs that are put up with.
    static let maximumStrikes = 2

    private var strikes = 0
    private var lastPing: NIODeadline?

    init(minimumInterval: TimeAmount) { self.minimumInterval = minimumInterval }

    mutating func sentHeadersOrData() {
        self.strikes = 0
        self.lastPing = nil
    }

    /// True if this was one too many: GOAWAY(ENHANCE_YOUR_CALM, "too_many_pings").
    mutating func receivedPing(at now: NIODeadline) -> Bool {
        defer { self.lastPing = now }
        guard let lastPing, now - lastPing < self.minimumInterval else { return false }
        self.strikes += 1
        return self.strikes > Self.maximumStrikes
    }
}
