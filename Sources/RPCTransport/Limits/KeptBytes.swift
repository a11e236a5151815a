import Synchronization

/// What all connections of a server together have it keep, in bytes of requests, responses and calls. The bounds of a
/// connection are no bound for many of them: a thousand may each stay within theirs and take all memory.
///
/// Counted in whole steps, so that small calls cost nothing; a connection that is closed gives back what it had.
final class KeptBytes: Sendable {
    /// What a connection keeps is known to within this.
    static let step = 16 << 10

    /// What the connections of one address keep: with many of them it has no larger share.
    final class Account: Sendable {
        fileprivate let total = Atomic<Int>(0)
        /// Connections that keep anything.
        fileprivate let holders = Atomic<Int>(0)
    }

    private let limit: Int
    private let total = Atomic<Int>(0)
    /// Those that keep anything.
    private let accounts = Atomic<Int>(0)

    init(limit: Int) { self.limit = limit }

    /// A connection's part has changed; both in whole steps.
    func change(from old: Int, to new: Int, of account: Account) {
        self.total.wrappingAdd(new - old, ordering: .relaxed)
        if old == 0 { account.holders.wrappingAdd(1, ordering: .relaxed) }
        if new == 0 { account.holders.wrappingSubtract(1, ordering: .relaxed) }
        let (before, after) = account.total.wrappingAdd(new - old, ordering: .relaxed)
        if before == 0 { self.accounts.wrappingAdd(1, ordering: .relaxed) }
        if after == 0 { self.accounts.wrappingSubtract(1, ordering: .relaxed) }
    }

    /// Whether all is too much, the account has more than one of as many equal parts of what may be kept as there are
    /// accounts, and a connection with `part` more than one of the account's parts.
    ///
    /// While all is too much there are always some of whom that is true.
    func isTooMuch(_ part: Int, of account: Account) -> Bool {
        guard self.total.load(ordering: .relaxed) > self.limit else { return false }
        let share = self.limit / max(1, self.accounts.load(ordering: .relaxed))
        guard account.total.load(ordering: .relaxed) > share else { return false }
        return part > share / max(1, account.holders.load(ordering: .relaxed))
    }
}
