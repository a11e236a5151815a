/// Waits that grow (grpc/doc/connection-backoff.md). Pure: randomness comes in.
struct ExponentialBackoff: Sendable {
    let initial: Duration
    let maximum: Duration
    let factor: Double
    /// How far a wait may be off either way, as a part of it.
    let jitter: Double

    /// - Parameters:
    ///   - step: 0 for the first wait.
    ///   - random: from 0 to 1.
    func delay(step: Int, random: Double) -> Duration {
        var delay = self.initial
        // Past 64 steps a factor that grows at all has reached any maximum.
        for _ in 0..<min(step, 64) where delay < self.maximum { delay = delay * self.factor }
        let variation: Double = 1 - self.jitter + 2 * self.jitter * random
        return min(delay, self.maximum) * variation
    }
}
