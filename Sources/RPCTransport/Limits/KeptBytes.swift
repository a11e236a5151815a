import Synchronization

/// What all connections of a server together have it keep, in bytes of requests and responses. The bounds of a connection
/// are no bound for many of them: a thousand may each stay within theirs and take all memory.
///
/// Counted in whole steps, so that small calls cost nothing; a connection that is closed gives back what it had.
final class KeptBytes: Sendable {
    /// What a connection keeps is known to within this.
    static let step = 64 << 10
    /// Nobody is turned away for less.
    private static let leastShare = 4 * KeptBytes.step

    private let limit: Int
    private let total = Atomic<Int>(0)
    private let holders = Atomic<Int>(0)

    init(limit: Int) { self.limit = limit }

    /// A connection's part has changed; both in whole steps.
    func change(from old: Int, to new: Int) {
        self.total.wrappingAdd(new - old, ordering: .relaxed)
        if old == 0 { self.holders.wrappingAdd(1, ordering: .relaxed) }
        if new == 0 { self.holders.wrappingSubtract(1, ordering: .relaxed) }
    }

    /// Whether all is too much, and `part` more than one of as many equal parts of what may be kept.
    func isTooMuch(_ part: Int) -> Bool {
        guard self.total.load(ordering: .relaxed) > self.limit else { return false }
        return part > max(Self.leastShare, self.limit / max(1, self.holders.load(ordering: .relaxed)))
    }
}
