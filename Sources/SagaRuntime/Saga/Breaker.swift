/// Whether a dependency is worth another try. Pure: time is passed in.
///
/// Failures in a row, over all sagas, open it. While it is open nothing that waits for it goes out; then one call does, as
/// a probe, and its end decides. Only repetition without bound is held back (undo, and questions after lost answers):
/// attempts of forward steps are few and bounded, and go out and are counted here all the same.
struct Breaker: Sendable, Equatable {
    struct Policy: Sendable, Equatable {
        /// Failures in a row that open it.
        var failures = 5
        /// How long it stays open at first; doubles with each probe that fails.
        var firstPause: Duration = .seconds(1)
        var longestPause: Duration = .seconds(30)
        /// From this pause on it has been down for a while.
        var longPause: Duration = .seconds(2)
    }

    private enum State: Sendable, Equatable {
        /// Can transition to: open.
        case closed(failures: Int)
        /// Can transition to: probing, closed (a call that was under way got an answer).
        case open(until: BootTime, pause: Duration)
        /// One call is on its way, and given up at `until`. Can transition to: closed, open.
        case probing(until: BootTime, pause: Duration)
    }

    enum Admission: Sendable, Equatable {
        case go
        /// It is down, and this call looks whether it still is.
        case probe
        /// Ask again at this instant.
        ///
        /// - Parameter isLong: the dependency has been down for a while, and nobody knows for how long.
        case wait(until: BootTime, isLong: Bool)
    }

    /// What is worth telling people.
    enum Change: Sendable, Equatable { case opened, closed }

    /// How long after its pause those who wait for it have looked, if anybody waits.
    static let patience: Duration = .seconds(3)
    /// How often those who wait look after a probe.
    static let glance: Duration = .milliseconds(100)

    private let policy: Policy
    private var state = State.closed(failures: 0)

    init(policy: Policy = Policy()) { self.policy = policy }

    var isOpen: Bool {
        switch self.state {
        case .closed: false
        case .open, .probing: true
        }
    }

    /// May a call go out?
    ///
    /// - Parameter limit: the longest that it takes; a probe that is never heard of again is over then.
    mutating func admit(now: BootTime, limit: Duration) -> Admission {
        switch self.state {
        case .closed:
            return .go
        case .open(let until, let pause), .probing(let until, let pause):
            if now < until {
                let isLong = pause >= self.policy.longPause
                if case .probing = self.state { return .wait(until: min(until, now + Self.glance), isLong: isLong) }
                return .wait(until: until, isLong: isLong)
            }
            self.state = .probing(until: now + limit, pause: pause)
            return .probe
        }
    }

    /// Whether new work is to go elsewhere. Whoever waits for it looks after it as soon as its pause is over; where nobody does, new
    /// work is what finds it back.
    func isDown(now: BootTime) -> Bool {
        switch self.state {
        case .closed: false
        case .open(let until, _): now < until + Self.patience
        case .probing(let until, _): now < until
        }
    }

    /// How many that slept may be woken for it.
    func rate(now: BootTime) -> SagaSleepers.Rate {
        switch self.state {
        case .closed: .all
        case .open(let until, _), .probing(let until, _): now < until ? .none : .probe
        }
    }

    /// The dependency answered, well or badly: it is there.
    mutating func answered() -> Change? {
        defer { self.state = .closed(failures: 0) }
        return self.isOpen ? .closed : nil
    }

    /// The dependency could not be reached, could not serve, or gave no answer.
    mutating func failed(now: BootTime) -> Change? {
        switch self.state {
        case .closed(let failures):
            if failures + 1 < self.policy.failures {
                self.state = .closed(failures: failures + 1)
                return nil
            }
            self.state = .open(until: now + self.policy.firstPause, pause: self.policy.firstPause)
            return .opened
        case .open(let until, _) where now < until:
            // It was under way when the breaker opened, and tells nothing new.
            return nil
        case .open(_, let pause), .probing(_, let pause):
            let longer = min(pause * 2, self.policy.longestPause)
            self.state = .open(until: now + longer, pause: longer)
            return nil
        }
    }

    /// A call ended that says nothing about the dependency (nothing was sent, say): if it was the probe, another may go.
    mutating func passed(now: BootTime) -> Change? {
        if case .probing(_, let pause) = self.state { self.state = .open(until: now, pause: pause) }
        return nil
    }
}
