import NIOCore

/// A budget that refills with time: so much at once, and so much a second.
struct TokenBucket {
    /// How large it is and how fast it fills.
    struct Rate: Sendable, Equatable {
        var burst: Double
        var perSecond: Double

        init(burst: Int, perSecond: Int) {
            self.burst = Double(burst)
            self.perSecond = Double(perSecond)
        }
    }

    let rate: Rate
    private var tokens: Double

    init(_ rate: Rate) {
        self.rate = rate
        self.tokens = rate.burst
    }

    mutating func refill(seconds: Double) {
        self.tokens = min(self.rate.burst, self.tokens + seconds * self.rate.perSecond)
    }

    /// What was done in good order pays for some of what wasn't.
    mutating func earn(_ count: Double) { self.tokens = min(self.rate.burst, self.tokens + count) }

    /// False if it is used up.
    mutating func spend(_ count: Double) -> Bool {
        self.tokens -= count
        return self.tokens >= 0
    }
}
