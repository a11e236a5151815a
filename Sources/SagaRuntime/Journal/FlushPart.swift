/// Records that are flushed together, and what came of it so far. Pure: it decides what a failure leads to.
///
/// 64 records share a flush, and its error rarely says which of them it is about. So a part that fails is compared with an
/// empty flush of the same statements: what fails that too is the database's trouble. Otherwise the part is halved, until
/// what fails is alone.
struct FlushPart<Element> {
    enum Remedy: Equatable {
        /// Send the same once more.
        case again
        /// Nothing can be written now: wait, and send the same again for as long as that lasts.
        case pause
        /// Run an empty flush: if that fails it is a `pause`, else ask `separate`.
        case compare
    }

    enum Verdict {
        case again
        /// Flush these instead, one after the other.
        case parts([FlushPart])
        /// It is alone, and others must not wait for it: it goes to the slow lane.
        case aside
        /// It is alone, and the database refuses it.
        case refuse
    }

    /// Conflicts in a row before a part is halved, or is kept apart.
    static var patience: Int { 10 }
    /// How long a part waits for a lock the first time.
    static var lockTimeout: Duration { .seconds(1) }
    /// The same once others' locks have been met: what is to be found out is who must wait, not when the wait ends.
    static var shortLockTimeout: Duration { .milliseconds(50) }

    var elements: [Element]
    /// Their flush was sent, and nobody knows what came of it.
    var isInDoubt = false
    private(set) var lockTimeout = Self.lockTimeout
    private var conflicts = 0
    private var locks = 0
    private var refusals = 0
    /// What has been kept apart before is tried together once, and then one by one.
    private let isApart: Bool

    init(_ elements: [Element]) {
        self.elements = elements
        self.isApart = false
    }

    /// Of the slow lane. Nobody else waits for it, so the fewer there are, the longer each may wait for its lock.
    init(apart elements: [Element]) {
        self.elements = elements
        self.isApart = true
        self.locks = 1
        self.lockTimeout = elements.count == 1 ? Self.lockTimeout : Self.shortLockTimeout
    }

    mutating func failed(_ scope: ErrorScope) -> Remedy {
        switch scope {
        case .outage:
            return .pause
        case .conflict:
            self.conflicts += 1
            return self.conflicts < Self.patience ? .again : .compare
        case .lock:
            self.locks += 1
            if Mutant.locksHoldUpTheFlush.isActive { return .again }
            if !self.isApart { self.lockTimeout = Self.shortLockTimeout }
            return self.locks < 2 ? .again : .compare
        case .day, .record:
            return .compare
        }
    }

    /// The database takes an empty flush, so it is about a record.
    mutating func separate(_ scope: ErrorScope) -> Verdict {
        if self.elements.count > 1 {
            if self.isApart {
                let each = max(Self.shortLockTimeout, Self.lockTimeout / self.elements.count)
                return .parts(self.elements.map { self.part([$0], lockTimeout: each) })
            }
            let middle = self.elements.count / 2
            return .parts(
                [self.elements[..<middle], self.elements[middle...]].map {
                    self.part(Array($0), lockTimeout: Self.shortLockTimeout)
                })
        }
        switch scope {
        case .conflict, .lock, .day, .outage:
            return .aside
        case .record:
            // Some errors pass (a table was being changed): only what fails twice is refused.
            self.refusals += 1
            return self.refusals < 2 ? .again : .refuse
        }
    }

    private func part(_ elements: [Element], lockTimeout: Duration) -> FlushPart {
        var part = self
        part.elements = elements
        part.isInDoubt = false
        part.lockTimeout = lockTimeout
        part.locks = 1
        part.conflicts = Self.patience / 2
        part.refusals = 0
        return part
    }
}
