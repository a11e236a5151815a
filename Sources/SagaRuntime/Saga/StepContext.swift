/// What a remote step knows when it is called.
public struct StepContext: Sendable {
    public var sagaID: SagaID
    public var step: String
    /// From 1; the attempt of this direction.
    public var attempt: Int
    /// Rises only after a definite "did not happen" or a finished undo; part of the idempotency key.
    public var generation: Int
    /// The saga's request, as `NewSaga.request` brought it (the definition's own encoding).
    public var request: [UInt8]
    /// Outputs of the steps that are done, by step name (JSON text).
    public var outputs: [String: String]
    /// Secret option values, while the saga lives (`saga_secret`); empty if there are none.
    public var secrets: [UInt8]
    /// The effect of an earlier attempt under this or an older generation may exist.
    public var isInDoubt: Bool
    /// This very call may have been sent before: by a process that is gone, or without an answer.
    public var isRepeat: Bool
    /// When forward work must be over.
    public var deadline: Timestamp
    /// Throws `leaseLost` if this process may no longer start effects. To be called right before **every** request to
    /// a provider or service.
    public var authorize: @Sendable () throws(StepError) -> Void

    public init(
        sagaID: SagaID, step: String, attempt: Int, generation: Int, request: [UInt8], outputs: [String: String],
        secrets: [UInt8], isInDoubt: Bool, isRepeat: Bool = false, deadline: Timestamp,
        authorize: @escaping @Sendable () throws(StepError) -> Void
    ) {
        self.sagaID = sagaID
        self.step = step
        self.attempt = attempt
        self.generation = generation
        self.request = request
        self.outputs = outputs
        self.secrets = secrets
        self.isInDoubt = isInDoubt
        self.isRepeat = isRepeat
        self.deadline = deadline
        self.authorize = authorize
    }

    /// `saga id : step : generation`, the key that every request of this step carries.
    public var idempotencyKey: String { "\(self.sagaID.rawValue):\(self.step):\(self.generation)" }
}

/// What a call that brings an effect about came to.
public enum Execution: Sendable, Equatable {
    /// The step's output (JSON text, at most 4 KiB).
    case done(output: String)
    /// The other side has accepted, and works on it.
    case pending(PendingJob)
}

/// Work that the other side has accepted and not finished.
public struct PendingJob: Sendable, Equatable {
    /// What the job is asked about by, whoever asks (JSON text, at most 4 KiB), e.g. its id. It is durable before anything else
    /// happens, and stands among the outputs until the step's own takes its place.
    public var output: String
    /// How far it is, for people.
    public var note: String
    /// When to ask, from now.
    public var pollAfter: Duration

    public init(output: String, note: String = "", pollAfter: Duration) {
        self.output = output
        self.note = note
        self.pollAfter = pollAfter
    }
}

/// What asking after an unknown outcome found.
public enum Resolution: Sendable {
    /// The effect exists: adopt it.
    case happened(output: String)
    /// Nothing is there. It counts only once the settle time has passed.
    case absent
    /// Create is unique by key: calling `execute` again under the same key is safe at once.
    case repeatable
    /// Nobody can be asked: the saga parks.
    case undecidable(StepError)
    /// Nobody can be asked, and the definition goes on as if the effect existed. Reason and message go into the event.
    case assumed(output: String, StepError)
}

/// What an undo found.
public enum Undone: Sendable, Equatable {
    /// Something was there and is gone now.
    case undone
    /// Nothing was there. For a step in doubt it counts only once the settle time has passed.
    case nothingFound
    /// The other side works on it: call again after that long.
    case pending(pollAfter: Duration)
    /// Nobody can be asked, and the definition goes on as if the effect were gone. Reason and message go into the event.
    case assumed(StepError)
}

/// A step whose effect lies outside the database. It may be called any number of times under one key.
public protocol RemoteStep: Sendable {
    /// False: there is nothing to do for this saga, the step is SKIPPED. Pure.
    ///
    /// - Parameter outputs: of the steps before it.
    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool
    /// An attempt of unknown outcome is merely repeated, so that more of them may be in doubt than calls may run.
    /// Default: false.
    var isRepeatable: Bool { get }
    /// Brings the effect about under `context.idempotencyKey`.
    func execute(_ context: StepContext) async throws(StepError) -> Execution
    /// Asks how far a job is that `execute` left pending; what it left is among `context.outputs`. `unavailable` and
    /// `unknownOutcome` say nothing about the job: it is asked about again. Any other error is the job's own, definite end.
    ///
    /// Default: a failure, for steps that leave no jobs.
    func poll(_ context: StepContext) async throws(StepError) -> Execution
    /// Asks what became of an earlier attempt whose outcome is unknown.
    func resolve(_ context: StepContext) async throws(StepError) -> Resolution
    /// Undoes the effect, over all generations if `context.isInDoubt`. "Not found" is `nothingFound`, not an error.
    func compensate(_ context: StepContext) async throws(StepError) -> Undone
    /// Called by a process that found itself fenced while `execute` was under way, once the saga has decided without that
    /// call (`context.outputs` is what it holds): removes everything of this step that the saga doesn't hold.
    ///
    /// - Parameter output: what the call made; `nil`: it got no answer, and whatever is there is to be looked for.
    func discard(_ context: StepContext, output: String?) async throws(StepError)
    /// What it calls; a dependency that is down is not hammered by every saga's undo (`Breaker`). Pure. Default: the step.
    func dependency(request: [UInt8], outputs: [String: String]) -> String?
    /// How long after this side gave up on a call its effect may still appear or stay invisible: what is left of the
    /// call on the other side plus the provider's own lag. "Not found" counts as "did not happen" only after it.
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration
}

extension RemoteStep {
    public var isRepeatable: Bool { false }

    public func poll(_ context: StepContext) async throws(StepError) -> Execution {
        throw StepError(.undecidable, reason: "NO_JOBS", message: "\(context.step) leaves no jobs to ask about")
    }

    public func dependency(request: [UInt8], outputs: [String: String]) -> String? { nil }
}
