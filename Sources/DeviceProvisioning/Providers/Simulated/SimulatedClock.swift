import SagaRuntime

/// What the simulated provider's own clock, its database's, says at least. Pure: this process' time is passed in.
///
/// Every answer brings a reading. Until the next one it runs on by this process' clock, from when the answer was read, so that it
/// is behind by what the answer took; ahead only if the database's clock was set back since, which whoever uses it notices
/// (`SimulatedStore.keepDeadline`).
struct SimulatedClock: Sendable {
    private var reading: (microseconds: Int64, at: ContinuousClock.Instant)?

    /// Clocks drift apart: an older reading isn't used.
    static let longestUse = Duration.seconds(10)

    mutating func read(_ microseconds: Int64, at instant: ContinuousClock.Instant) {
        // Answers of two connections may come in another order than they were made.
        if let now = self.now(at: instant), now >= microseconds { return }
        self.reading = (microseconds, instant)
    }

    mutating func forget() { self.reading = nil }

    /// Since 1970; `nil`: ask.
    func now(at instant: ContinuousClock.Instant) -> Int64? {
        guard let reading = self.reading, instant - reading.at <= Self.longestUse else { return nil }
        return reading.microseconds + (instant - reading.at).wholeMicroseconds
    }
}
