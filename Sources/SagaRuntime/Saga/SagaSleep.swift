/// What a saga waits for that has nothing to do for a while.
public struct SagaWait: Sendable, Equatable {
    public enum Reason: String, Sendable {
        /// The next attempt is not due.
        case backOff = "BACK_OFF"
        /// What a call has done may not be visible yet.
        case settleTime = "SETTLE_TIME"
        /// What it has to call is down.
        case breakerOpen = "BREAKER_OPEN"
        /// This process has no share of what it has to call: others go on with it.
        case noPermit = "NO_PERMIT"
        /// The other side works on it.
        case job = "JOB"
        /// It was given a command, and is to be taken up.
        case command = "COMMAND"
    }

    public var reason: Reason
    /// Whom it waits for; `nil`: only for time.
    public var dependency: String?
    /// By the database's clock; `nil`: nobody knows.
    public var until: Timestamp?

    public init(reason: Reason, dependency: String? = nil, until: Timestamp? = nil) {
        self.reason = reason
        self.dependency = dependency
        self.until = until
    }
}

/// A saga that is put to sleep: a row of `saga_waiting`, until somebody claims it.
struct SagaSleep: Sendable, Equatable {
    /// Now, by the clock that the instants below are by. The row has them by the database's own: this process may not have
    /// noticed yet that that one has stepped.
    var now: Timestamp
    var wait: SagaWait
    /// Every intent of it is certainly unsent.
    var isUnsent: Bool
    /// The last instant at which a call without an answer may have gone out; `nil`: none has. It counts only while the clock
    /// epoch lasts.
    var doubtUntil: Timestamp?
}
