/// A kind of saga: its steps in forward order. Registered by code under `(type, version)`; rows name both.
public struct SagaDefinition: Sendable {
    /// A record says in a byte which step it is about.
    static let maximumSteps = 255

    /// e.g. `DEVICE_CREATION`.
    public var type: String
    public var version: Int
    public var steps: [StepDefinition]
    /// The index of the last step that `Milestone.provisioned` waits for.
    public var provisionedStep: Int
    /// Whether its sagas go to sleep while they have nothing to do. Programs that know no sleep would take them up at once, so
    /// no definition that such a program knows may.
    public var sleeps: Bool
    /// The feature that all live instances must know before new sagas are of this version; `nil`: none.
    public var requiredFeature: String?
    /// The site that a saga's calls go to, by its request and its outputs so far (`Sites`). Pure. `nil`: none is chosen.
    public var site: @Sendable (_ request: [UInt8], _ outputs: [String: String]) -> String?
    /// What this process lacks to go on with a saga that names no site in its row: a site, or what stands for one. `nil`: nothing.
    public var missing: @Sendable (_ request: [UInt8], _ outputs: [String: String]) -> String?

    public init(
        type: String, version: Int, steps: [StepDefinition], provisionedStep: Int, sleeps: Bool = false,
        requiredFeature: String? = nil,
        site: @escaping @Sendable (_ request: [UInt8], _ outputs: [String: String]) -> String? = { _, _ in nil },
        missing: @escaping @Sendable (_ request: [UInt8], _ outputs: [String: String]) -> String? = { _, _ in nil }
    ) {
        self.type = type
        self.version = version
        self.steps = steps
        self.provisionedStep = provisionedStep
        self.sleeps = sleeps
        self.requiredFeature = requiredFeature
        self.site = site
        self.missing = missing
    }
}

public struct StepDefinition: Sendable {
    public enum Action: Sendable {
        case remote(any RemoteStep)
        case database(DatabaseStep)
    }

    /// What a failure of a step leads to (the terms of the saga literature).
    public enum Kind: String, Sendable {
        /// It can be undone: a failure turns the saga back.
        case compensatable
        /// Once its intent is durable the saga only goes forward. At most one step of a saga is the pivot.
        case pivot
        /// Comes after the pivot: it is tried until it succeeds.
        case retriable
    }

    /// e.g. `ALLOCATE_PORTS`.
    public var name: String
    public var kind: Kind
    public var action: Action
    /// Of a remote step: what its flush must grant before it is done. It is tried where the step would start: granted, the step is
    /// done and nobody is called. Refused, the step's call is to clear the way, and each success of it is another try.
    public var claim: DatabaseStep?
    /// Whether the undo calls `RemoteStep.compensate`. False: its undo is part of another step's, or pure database.
    public var undoIsRemote: Bool
    /// Written in the flush that records the step's success.
    public var onSucceeded: [SideEffect]
    /// Written in the flush that records the start of its undo.
    public var onCompensating: [SideEffect]
    /// Written in the flush that records the end of its undo.
    public var onCompensated: [SideEffect]
    /// Steps whose undo must be over before this one's starts; a parked undo stops only these.
    public var undoAfter: [String]
    public var retry: RetryPolicy
    public var undoRetry: RetryPolicy
    /// The longest that one call to the other side takes before it counts as unknown.
    public var callLimit: Duration
    /// The reason of a failure that is nobody's word: every attempt's outcome stayed unknown and nothing came of them.
    public var unavailableReason: String

    public init(
        name: String, kind: Kind = .compensatable, action: Action, claim: DatabaseStep? = nil,
        undoIsRemote: Bool = false,
        onSucceeded: [SideEffect] = [],
        onCompensating: [SideEffect] = [], onCompensated: [SideEffect] = [], undoAfter: [String] = [],
        retry: RetryPolicy = .forward, undoRetry: RetryPolicy = .undo, callLimit: Duration = .seconds(30),
        unavailableReason: String = "UNAVAILABLE"
    ) {
        self.name = name
        self.kind = kind
        self.action = action
        self.claim = claim
        self.undoIsRemote = undoIsRemote
        self.onSucceeded = onSucceeded
        self.onCompensating = onCompensating
        self.onCompensated = onCompensated
        self.undoAfter = undoAfter
        self.retry = retry
        self.undoRetry = undoRetry
        self.callLimit = callLimit
        self.unavailableReason = unavailableReason
    }
}

extension StepDefinition {
    /// What it runs inside flushes.
    var databaseSteps: [DatabaseStep] {
        if case .database(let action) = self.action { return [action] }
        return self.claim.map { [$0] } ?? []
    }
}

/// A step that is one SQL statement over the whole batch, inside the flush: exactly once, no round trip of its own.
///
/// `ctes` is spliced into the journal's guarded statement, after a relation
/// `accepted(saga_id text, argument jsonb, ordinal bigint)` that holds the sagas of the batch that passed the guard. It
/// is one or more comma-separated common table expressions without the word WITH, the last of which is named `granted`
/// and has the columns `(saga_id text, output text)`; a saga that is not in it is refused. No parameters of its own.
public struct DatabaseStep: Sendable {
    /// Identifies the statement (prepared once per connection).
    public var name: String
    public var ctes: String
    /// Parameters of one saga, as JSON text.
    public var argument: @Sendable (SagaView) -> String
    /// What a refusal is called, e.g. `PORTS_EXHAUSTED`; `nil`: it never refuses, and has no output.
    public var refusal: StepError?
    /// What a refusal of one saga is called, where that depends on the saga; `nil`: always as `refusal` says.
    public var refusalOf: (@Sendable (SagaView) -> StepError)?
    /// Its output is a JSON object whose `site` is the site of the saga's calls from then on; the same flush writes it into the
    /// saga's row, for the claim.
    public var choosesSite: Bool

    public init(
        name: String, ctes: String, argument: @escaping @Sendable (SagaView) -> String, refusal: StepError?,
        choosesSite: Bool = false
    ) {
        self.name = name
        self.ctes = ctes
        self.argument = argument
        self.refusal = refusal
        self.choosesSite = choosesSite
    }
}

/// A statement that rides in a flush and touches only the sagas that passed the guard.
///
/// `statement` follows a relation `accepted(saga_id text, argument jsonb)` and is one INSERT, UPDATE or DELETE (it may
/// begin with further CTEs: start it with `, name AS (…)`).
public struct SideEffect: Sendable {
    public var name: String
    public var statement: String
    public var argument: @Sendable (SagaView) -> String

    public init(name: String, statement: String, argument: @escaping @Sendable (SagaView) -> String) {
        self.name = name
        self.statement = statement
        self.argument = argument
    }
}

/// What SQL arguments are made from: a saga's identity, request and outputs so far.
public struct SagaView: Sendable {
    public var sagaID: SagaID
    public var userID: String
    /// What the saga is about: the device's id (UUID text).
    public var resourceID: String
    /// The caller's own; empty: none.
    public var batchID = ""
    public var request: [UInt8]
    public var outputs: [String: String]
    /// Steps of which a call was not answered, though they are done: it may still take effect.
    public var doubtfulSteps: Set<String> = []
    /// Steps whose effect was taken back, or may have been there and was looked for.
    public var undoneSteps: Set<String> = []
    /// Why the saga turned back.
    public var failure: SagaFailure?
    /// Of a new saga: `NewSaga.sites`.
    public var sites: [String] = []
    public var createdAt: Timestamp
    /// Of the flush's last event.
    public var updatedAt: Timestamp

    public init(
        sagaID: SagaID, userID: String, resourceID: String, request: [UInt8], outputs: [String: String],
        createdAt: Timestamp, updatedAt: Timestamp? = nil
    ) {
        self.sagaID = sagaID
        self.userID = userID
        self.resourceID = resourceID
        self.request = request
        self.outputs = outputs
        self.createdAt = createdAt
        self.updatedAt = updatedAt ?? createdAt
    }
}

/// How often and how far apart attempts are: exponential back-off with full jitter.
public struct RetryPolicy: Sendable, Equatable {
    /// Attempts after the first.
    public var maximumRetries: Int
    public var initialDelay: Duration
    public var maximumDelay: Duration

    public init(maximumRetries: Int, initialDelay: Duration, maximumDelay: Duration) {
        self.maximumRetries = maximumRetries
        self.initialDelay = initialDelay
        self.maximumDelay = maximumDelay
    }

    /// 3 retries: up to 1, 2 and 4 s.
    public static let forward = RetryPolicy(maximumRetries: 3, initialDelay: .seconds(1), maximumDelay: .seconds(30))
    /// About 6 hours: up to 1 s doubling to 5 min.
    public static let undo =
        FaultPoint.isWanted("undo.impatient")
        ? RetryPolicy(maximumRetries: 1, initialDelay: .milliseconds(100), maximumDelay: .milliseconds(100))
        : RetryPolicy(maximumRetries: 80, initialDelay: .seconds(1), maximumDelay: .seconds(300))

    /// The delay before attempt `attempt + 1`; `random` in 0..<1 (full jitter).
    public func delay(afterAttempt attempt: Int, random: Double, atLeast: Duration?) -> Duration {
        let factor = Int64(1) << Int64(min(max(attempt - 1, 0), 30))
        let ceiling = min(self.initialDelay.wholeMicroseconds &* factor, self.maximumDelay.wholeMicroseconds)
        let jittered = Duration.microseconds(Int64(Double(max(ceiling, 0)) * random))
        return max(jittered, atLeast ?? .zero)
    }
}
