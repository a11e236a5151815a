/// Lets one occurrence in a while through, and counts the others: for log lines that many sagas would write. Pure.
struct Occasionally: Sendable {
    private let pause: Duration
    private var last: ContinuousClock.Instant?
    private var count = 0

    init(every pause: Duration = .seconds(60)) { self.pause = pause }

    /// - Returns: how many there were since the last one that was let through, this one included; `nil`: not now.
    mutating func occurred(now: ContinuousClock.Instant) -> Int? {
        self.count += 1
        if let last, now - last < self.pause { return nil }
        self.last = now
        defer { self.count = 0 }
        return self.count
    }
}
