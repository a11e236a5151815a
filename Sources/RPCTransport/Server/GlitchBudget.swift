import NIOCore

/// How much misbehaviour that costs us more than the peer is put up with on one connection (MadeYouReset,
/// CVE-2025-8671; floods of empty frames): a token bucket.
struct GlitchBudget {
    private static let burst = 500.0
    private static let perSecond = 50.0

    private var tokens = Self.burst
    private var refilled: NIODeadline

    init(now: NIODeadline) { self.refilled = now }

    /// False if it is used up.
    mutating func spend(_ count: Int, at now: NIODeadline) -> Bool {
        let seconds = Double((now - self.refilled).nanoseconds) / 1e9
        self.refilled = now
        self.tokens = min(Self.burst, self.tokens + seconds * Self.perSecond) - Double(count)
        return self.tokens >= 0
    }
}
