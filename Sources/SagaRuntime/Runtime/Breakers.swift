import Logging
import Synchronization

/// The breakers of this process, one per dependency; see `Breaker`.
final class Breakers: Sendable {
    private let clock: DatabaseClock
    private let observer: any SagaRuntimeObserver
    private let logger: Logger
    private let breakers = Mutex<[String: Breaker]>([:])

    init(clock: DatabaseClock, observer: any SagaRuntimeObserver, logger: Logger) {
        self.clock = clock
        self.observer = observer
        self.logger = logger
    }

    /// Whether a call may go out; attempts of forward steps need not ask.
    func admit(_ dependency: String, limit: Duration) -> Breaker.Admission {
        let now = self.clock.moment().uptime
        return self.breakers.withLock { $0[dependency, default: Breaker()].admit(now: now, limit: limit) }
    }

    /// How many that slept may be woken for it.
    func rate(_ dependency: String) -> SagaSleepers.Rate {
        let now = self.clock.moment().uptime
        return self.breakers.withLock { $0[dependency]?.rate(now: now) ?? .all }
    }

    /// Whether new work is to go elsewhere.
    func isDown(_ dependency: String) -> Bool {
        let now = self.clock.moment().uptime
        return self.breakers.withLock { $0[dependency]?.isDown(now: now) ?? false }
    }

    /// What a call's end says about its dependency.
    ///
    /// - Parameter wasCutShort: the saga's deadline ended it before its own limit did.
    func heard(_ outcome: SagaMachine.CallOutcome, from dependency: String, wasCutShort: Bool) {
        let now = self.clock.moment().uptime
        let change: Breaker.Change? = self.breakers.withLock { breakers in
            switch outcome.sign(wasCutShort: wasCutShort) {
            case .answered: breakers[dependency, default: Breaker()].answered()
            case .failed: breakers[dependency, default: Breaker()].failed(now: now)
            case .nothing: breakers[dependency]?.passed(now: now)
            }
        }
        guard let change else { return }
        self.observer.breakerChanged(dependency: dependency, isOpen: change == .opened)
        switch change {
        case .opened:
            self.logger.log(
                .error, cause: "breaker.opened \(dependency)",
                "[SAGA] dependency is down: undo waits, one call at a time looks after it",
                metadata: ["dependency": "\(dependency)"])
        case .closed:
            self.logger.log(
                .notice, cause: "breaker.closed \(dependency)", "[SAGA] dependency is back",
                metadata: ["dependency": "\(dependency)"])
        }
    }
}

extension SagaMachine.CallOutcome {
    enum Sign { case answered, failed, nothing }

    /// What it says about the other side.
    func sign(wasCutShort: Bool) -> Sign {
        switch self {
        // Said without asking anybody.
        case .resolved(.repeatable), .resolved(.undecidable), .resolved(.assumed), .undone(.assumed): .nothing
        case .notSent: .nothing
        case .succeeded, .pending, .undone, .resolved(.happened), .resolved(.absent): .answered
        case .abandoned: wasCutShort ? .nothing : .failed
        case .failed(let error):
            switch error.errorClass {
            case .refused, .conflict, .notFound, .throttled: .answered
            case .unavailable, .unknownOutcome: .failed
            case .invalid, .undecidable, .leaseLost: .nothing
            }
        }
    }
}
