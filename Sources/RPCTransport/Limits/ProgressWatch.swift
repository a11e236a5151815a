import NIOCore

/// Whether something that is under way moves fast enough. It is looked at now and then, not at each byte.
///
/// The time allowed since the mark is the patience, and a second more for so many bytes; each look at which the bytes
/// since the mark justify the time since then moves the mark.
struct ProgressWatch {
    private let markedAt: NIODeadline
    private let markedBytes: Int

    init(bytes: Int, at now: NIODeadline) {
        self.markedAt = now
        self.markedBytes = bytes
    }

    enum Verdict: Equatable {
        case patience
        /// It has moved fast enough since the mark: look from here on.
        case moves
        case tooSlow
    }

    func look(bytes: Int, at now: NIODeadline, patience: TimeAmount, bytesPerSecond: Int) -> Verdict {
        let elapsed = now - self.markedAt
        let moved = bytes - self.markedBytes
        if moved > 0, Double(moved) >= Double(elapsed.nanoseconds) / 1e9 * Double(bytesPerSecond) { return .moves }
        return elapsed >= patience ? .tooSlow : .patience
    }
}
