/// Where a saga stands. Names are the contract's and the SQL enum's, raw values the contract's numbers.
public enum SagaStatus: Int, Sendable, CaseIterable {
    /// Forward steps are executing. Can transition to: `completed`, `compensating`, `compensated` (nothing to undo),
    /// `parked`.
    case running = 1
    /// Terminal: every step succeeded.
    case completed = 2
    /// Steps are being undone, newest first. Can transition to: `compensated`, `parked`.
    case compensating = 3
    /// Terminal: everything that was done is undone.
    case compensated = 4
    /// Neither terminal nor moving: an operator is needed. Can transition to: `running`, `compensating`.
    case parked = 5

    /// The name in SQL and in the contract (without its prefix).
    public var name: String {
        switch self {
        case .running: "RUNNING"
        case .completed: "COMPLETED"
        case .compensating: "COMPENSATING"
        case .compensated: "COMPENSATED"
        case .parked: "PARKED"
        }
    }

    public init?(name: String) {
        guard let status = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = status
    }

    public var isTerminal: Bool { self == .completed || self == .compensated }
    /// Somebody has to move it on.
    public var isActive: Bool { self == .running || self == .compensating }
}

/// Where one step of a saga stands. Raw values are the contract's numbers.
public enum StepStatus: Int, Sendable, CaseIterable {
    case pending = 1
    /// Its intent is durable; the effect may or may not exist.
    case running = 2
    case succeeded = 3
    case failed = 4
    case compensating = 5
    case compensated = 6
    case compensationFailed = 7
    case skipped = 8
}

/// The kinds of durable facts about a saga. Raw values are the contract's numbers.
public enum SagaEventType: Int, Sendable, CaseIterable {
    /// A newer program's, which says that it may be ignored.
    case unspecified = 0
    case sagaStarted = 1
    case stepStarted = 2
    case stepRetrying = 3
    case stepSucceeded = 4
    case stepFailed = 5
    case sagaCompensating = 6
    case stepCompensating = 7
    case stepCompensated = 8
    case stepCompensationFailed = 9
    case sagaCompleted = 10
    case sagaCompensated = 11
    case sagaParked = 12
    case sagaResumed = 13
    case sagaAdopted = 14
    case stepSkipped = 15
    case stepProgress = 16
    case commandReceived = 17

    /// The format of the first rows that may hold it (`JournalEventCodec`).
    var format: Int { self == .stepProgress || self == .commandReceived ? 2 : 1 }

    /// The contract's name without its prefix, for logs.
    public var name: String {
        switch self {
        case .unspecified: "UNSPECIFIED"
        case .sagaStarted: "SAGA_STARTED"
        case .stepStarted: "STEP_STARTED"
        case .stepRetrying: "STEP_RETRYING"
        case .stepSucceeded: "STEP_SUCCEEDED"
        case .stepFailed: "STEP_FAILED"
        case .sagaCompensating: "SAGA_COMPENSATING"
        case .stepCompensating: "STEP_COMPENSATING"
        case .stepCompensated: "STEP_COMPENSATED"
        case .stepCompensationFailed: "STEP_COMPENSATION_FAILED"
        case .sagaCompleted: "SAGA_COMPLETED"
        case .sagaCompensated: "SAGA_COMPENSATED"
        case .sagaParked: "SAGA_PARKED"
        case .sagaResumed: "SAGA_RESUMED"
        case .sagaAdopted: "SAGA_ADOPTED"
        case .stepSkipped: "STEP_SKIPPED"
        case .stepProgress: "STEP_PROGRESS"
        case .commandReceived: "COMMAND_RECEIVED"
        }
    }

    /// False for events of the whole saga.
    var isOfAStep: Bool {
        switch self {
        case .stepStarted, .stepRetrying, .stepSucceeded, .stepFailed, .stepCompensating, .stepCompensated,
            .stepCompensationFailed, .stepSkipped, .stepProgress:
            true
        case .unspecified, .sagaStarted, .sagaCompensating, .sagaCompleted, .sagaCompensated, .sagaParked, .sagaResumed,
            .sagaAdopted, .commandReceived:
            false
        }
    }
}

/// What turned a saga back. Raw values are the contract's numbers.
public enum FailureCause: Int, Sendable, CaseIterable {
    case stepFailed = 1
    case timedOut = 2
    case cancelled = 3
}

/// Why a saga did not complete.
public struct SagaFailure: Sendable, Equatable {
    public var cause: FailureCause
    public var step: String
    public var reason: String
    public var message: String

    public init(cause: FailureCause, step: String, reason: String, message: String) {
        self.cause = cause
        self.step = step
        self.reason = reason
        self.message = message
    }
}
