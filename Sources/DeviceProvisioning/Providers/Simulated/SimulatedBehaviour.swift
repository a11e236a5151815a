/// How the simulated provider behaves: from configuration, and per request from `provider_options`.
///
/// docs/simulated-provider.md has the options; it and `Option` change together.
public struct SimulatedBehaviour: Sendable, Equatable {
    /// The calls that can be made to go wrong.
    public enum Call: String, Sendable, CaseIterable {
        case create, start, stop, destroy, find
    }

    /// How a call fails; names of the classes of `StepError`, and `hang`.
    public enum Failure: String, Sendable, CaseIterable {
        case invalid, refused, throttled, unavailable, unknown
        /// Nobody can say what came of it.
        case undecidable
        /// A stranger holds the ports (create only).
        case conflict
        /// No answer before the caller gives up, and no effect.
        case hang
    }

    /// How long each call takes.
    public var latency: Duration
    /// How long a device boots.
    public var boot: Duration
    /// Calls that fail, without effect.
    public var failures: [Call: Failure]
    /// How many attempts of a saga's step fail; those after succeed.
    public var failTimes: Int
    /// Calls that take effect, and whose answer is lost.
    public var lostReplies: Set<Call>
    /// How many attempts lose their answer.
    public var loseTimes: Int
    /// How long after a lost answer the effect happens.
    public var late: Duration
    /// How long a look-up does not see a new device.
    public var lookupLag: Duration
    /// Whether the provider knows a repeated create by its key.
    public var isUniqueByKey: Bool
    #if FAULT_POINTS
        /// The call that kills the server (test builds only).
        public var crash: Call?
    #endif

    public init(latency: Duration = .zero, boot: Duration = .zero) {
        self.latency = latency
        self.boot = boot
        self.failures = [:]
        self.failTimes = .max
        self.lostReplies = []
        self.loseTimes = 1
        self.late = .zero
        self.lookupLag = .zero
        self.isUniqueByKey = true
    }

    /// Whether the `attempt`th call of its kind fails, and how.
    func failure(_ call: Call, attempt: Int) -> Failure? {
        attempt <= self.failTimes ? self.failures[call] : nil
    }

    /// Whether the `attempt`th call of its kind loses its answer.
    func losesReply(_ call: Call, attempt: Int) -> Bool {
        attempt <= self.loseTimes && self.lostReplies.contains(call)
    }
}
