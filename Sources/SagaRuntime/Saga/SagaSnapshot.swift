/// A saga as its events tell it: the fold over all of them, and the only place where events gain their meaning.
public struct SagaSnapshot: Sendable, Equatable {
    public var id: SagaID
    public var type: String
    public var definitionVersion: Int
    public var status: SagaStatus = .running
    /// Index of the current step; the last step's once completed.
    public var stepIndex = 0
    public var steps: [StepSnapshot]
    /// Why it turned back, or is parked.
    public var failure: SagaFailure?
    /// It turned back: from then on it is undone.
    public internal(set) var isTurnedBack = false
    /// Commands that were consumed.
    var commandsReceived = 0
    /// The newest of them that had an effect, and the sequence of its event.
    var obeyed: ObeyedCommand?
    public var userID: String
    /// Whom the user belongs to; empty: nobody.
    public var tenantID = ""
    /// What the saga is about: the device's id (UUID text).
    public var resourceID: String
    public var requestID: String
    public var batchID: String
    public var createdAt: Timestamp
    public var updatedAt: Timestamp
    /// Forward work past this instant is undone.
    public var deadline: Timestamp
    public var completedAt: Timestamp?
    public var lastSequence = 0
    /// The definition's own encoding of what was asked for.
    public var request: [UInt8]
    /// Option values were stored in `saga_secret`.
    public var hasSecrets: Bool
    /// Nobody drives it: its rows can't be read, or the database refuses its records. Only what is read to be shown tells.
    public var isQuarantined = false
    /// What it waits for, asleep. Only what is read to be shown tells.
    var sleep: SagaWait?
    /// Only of an outline: the name of the current step.
    var outlinedStep: String?

    /// Told by the saga's row alone, since this binary can't read its events: without steps, failure and request.
    public var isOutline: Bool { self.outlinedStep != nil }

    public var currentStep: String {
        if let outlinedStep = self.outlinedStep { return outlinedStep }
        return self.steps.indices.contains(self.stepIndex) ? self.steps[self.stepIndex].name : ""
    }

    /// What it waits for, as far as rows tell: the next attempt, a job, or what it sleeps for.
    public var wait: SagaWait? {
        if let sleep = self.sleep { return sleep }
        guard self.status.isActive else { return nil }
        let due = self.steps.compactMap { step in
            step.retryAt.map { SagaWait(reason: .backOff, until: $0) }
                ?? step.pollAt.map { SagaWait(reason: .job, until: $0) }
        }
        return due.min { ($0.until ?? self.deadline) < ($1.until ?? self.deadline) }
    }

    /// The step of which a call's effect may exist that is not recorded, the newest first; `nil`: there is none.
    public var doubtfulStep: String? {
        guard !self.status.isTerminal else { return nil }
        return self.steps.last { $0.doubt == .sent || $0.undoDoubt == .sent }?.name
    }

    /// Steps that succeeded or were skipped, and are not undone.
    public var stepsDone: Int { self.steps.count { $0.isDone } }

    /// Outputs of the steps that have one, by name.
    public var outputs: [String: String] {
        var outputs: [String: String] = [:]
        outputs.reserveCapacity(self.steps.count)
        for step in self.steps {
            if let output = step.output { outputs[step.name] = output }
        }
        return outputs
    }

    /// One of them.
    public func output(of step: String) -> String? { self.steps.first { $0.name == step }?.output }
}

/// A command that had an effect, as its event tells it.
struct ObeyedCommand: Sendable, Equatable {
    /// `SagaCommand.Kind`, perhaps one that this program doesn't know.
    var kind: String
    var sequence: Int
}

/// One step as the events tell it.
public struct StepSnapshot: Sendable, Equatable {
    public var name: String
    public var status: StepStatus = .pending
    /// Forward attempts so far.
    public var attempts = 0
    public var compensationAttempts = 0
    public var startedAt: Timestamp?
    public var finishedAt: Timestamp?
    /// Last error, for people.
    public var error = ""
    /// JSON text, once succeeded.
    public var output: String?
    /// Of the idempotency key.
    public var generation = 0
    /// What the events say of calls that may be unanswered, forward and of the undo. The process that made them knows more
    /// (`SagaMachine.doubt`).
    var doubt = RecordedDoubt.none
    var undoDoubt = RecordedDoubt.none
    /// Succeeded or skipped, and not undone.
    public var isDone = false
    /// When the next attempt (of either direction) may start.
    public var retryAt: Timestamp?
    /// Of work that the other side has accepted and not finished: when it is asked about next, and how far it was.
    public var pollAt: Timestamp?
    public var note = ""
    /// Attempts before an operator resumed the saga: they count no more.
    var forgivenAttempts = 0
    var forgivenUndoAttempts = 0

    /// `output` names a job on the other side.
    var isPending: Bool { self.pollAt != nil }

    /// How much the events say.
    enum RecordedDoubt: Sendable, Equatable {
        /// No call is unanswered.
        case none
        /// An intent is durable and its outcome isn't: whoever wrote it knows whether it was sent.
        case intent
        /// A call was not answered: its effect may exist, or still appear.
        case sent

        /// What another attempt's intent, or a definite answer to it, leaves of it.
        fileprivate func or(_ other: RecordedDoubt) -> RecordedDoubt { self == .sent ? .sent : other }
    }

    /// A call's outcome is not recorded: its effect may exist.
    public var isInDoubt: Bool { self.doubt != .none }

    /// The job is over, and what it was asked about by means nothing any more.
    fileprivate mutating func endJob() {
        guard self.isPending else { return }
        self.output = nil
        self.pollAt = nil
    }

    /// An operator resumed the saga: attempts are counted anew, and what could not be undone is tried again.
    fileprivate mutating func resume() {
        self.forgivenAttempts = self.attempts
        self.forgivenUndoAttempts = self.compensationAttempts
        self.retryAt = nil
        if self.status == .compensationFailed { self.status = .compensating }
    }

    /// Whether there is, or may be, something to undo.
    var needsUndo: Bool {
        switch self.status {
        case .succeeded, .compensating, .compensationFailed: true
        case .running, .failed: self.isInDoubt
        case .pending, .compensated, .skipped: false
        }
    }
}

extension SagaSnapshot {
    /// The state right after birth, before any event.
    init(
        id: SagaID, birth: SagaBirth, userID: String, tenantID: String, resourceID: String, batchID: String,
        time: Timestamp,
        stepNames: [String]
    ) {
        self.init(
            id: id, type: birth.type, definitionVersion: birth.definitionVersion,
            steps: stepNames.map { StepSnapshot(name: $0) }, userID: userID, tenantID: tenantID,
            resourceID: resourceID,
            requestID: birth.requestID, batchID: batchID, createdAt: time, updatedAt: time, deadline: birth.deadline,
            request: birth.request, hasSecrets: birth.hasSecrets)
    }

    /// Folds one event in and returns what watchers see of it.
    @discardableResult
    mutating func apply(_ event: JournalEvent, databaseOutput: String? = nil) throws(StoredDataError) -> SagaEvent {
        if let step = event.step, !self.steps.indices.contains(step) {
            throw StoredDataError(message: "\(self.id) has no step \(step)")
        }
        self.lastSequence += 1
        self.updatedAt = event.time
        switch event.type {
        case .unspecified, .sagaStarted, .sagaAdopted:
            break
        case .commandReceived:
            self.commandsReceived += 1
            if !event.flags.contains(.noEffect) {
                self.obeyed = ObeyedCommand(kind: event.reason, sequence: self.lastSequence)
            }
        case .stepStarted:
            self.update(event) { step in
                step.status = .running
                step.attempts = event.attempt
                step.generation = event.generation
                step.doubt = step.doubt.or(.intent)
                step.retryAt = nil
                if step.startedAt == nil { step.startedAt = event.time }
            }
        case .stepRetrying:
            let isUndo = self.status == .compensating
            let left: StepSnapshot.RecordedDoubt =
                event.flags.contains(.outcomeUnknown) ? .sent : event.flags.contains(.withdrawn) ? .none : .intent
            self.update(event) { step in
                if isUndo {
                    step.compensationAttempts = event.attempt
                    step.undoDoubt = step.undoDoubt.or(left)
                } else {
                    step.attempts = event.attempt
                    // A generation ends only once nothing of it can appear any more.
                    if event.generation > step.generation {
                        step.doubt = .none
                        step.endJob()
                    }
                    step.generation = event.generation
                    step.doubt = step.doubt.or(left)
                }
                step.error = event.message
                step.retryAt = event.retryAt
            }
        case .stepProgress:
            self.update(event) { step in
                step.attempts = max(step.attempts, event.attempt)
                step.output = event.output
                step.note = event.message
                step.pollAt = event.retryAt ?? event.time
                step.doubt = .sent
                step.retryAt = nil
            }
        case .stepSucceeded:
            self.update(event) { step in
                step.status = .succeeded
                step.pollAt = nil
                step.attempts = max(step.attempts, event.attempt)
                // Done again, what it granted before stands until the database says what it grants now.
                step.output = event.output ?? databaseOutput ?? step.output
                // What one call made says nothing about another one that was not answered.
                step.doubt = event.flags.contains(.outcomeUnknown) ? .sent : step.doubt.or(.none)
                step.isDone = true
                step.retryAt = nil
                step.finishedAt = event.time
            }
        case .stepSkipped:
            let isUndo = self.isTurnedBack
            self.update(event) { step in
                step.status = .skipped
                step.isDone = !isUndo
                step.doubt = .none
                step.undoDoubt = .none
                step.retryAt = nil
                step.pollAt = nil
                step.finishedAt = event.time
            }
        case .stepFailed:
            self.update(event) { step in
                step.status = .failed
                step.isDone = false  // it may have been, before it was done again
                step.attempts = max(step.attempts, event.attempt)
                step.error = event.message
                step.doubt = event.flags.contains(.outcomeUnknown) ? .sent : .none
                step.retryAt = nil
                step.pollAt = nil
                step.finishedAt = event.time
            }
        case .sagaCompensating:
            self.status = .compensating
            self.isTurnedBack = true
            self.failure = SagaFailure(
                cause: event.cause ?? .stepFailed, step: event.step.map { self.steps[$0].name } ?? self.currentStep,
                reason: event.reason, message: event.message)
        case .stepCompensating:
            self.update(event) { step in
                step.status = .compensating
                step.compensationAttempts = event.attempt
                step.undoDoubt = step.undoDoubt.or(.intent)
                step.retryAt = nil
            }
        case .stepCompensated:
            self.update(event) { step in
                step.status = .compensated
                step.compensationAttempts = max(step.compensationAttempts, event.attempt)
                step.doubt = .none
                step.undoDoubt = .none
                step.isDone = false
                step.retryAt = nil
                step.finishedAt = event.time
            }
        case .stepCompensationFailed:
            self.update(event) { step in
                step.status = .compensationFailed
                step.compensationAttempts = max(step.compensationAttempts, event.attempt)
                step.error = event.message
                step.retryAt = nil
            }
        case .sagaCompleted:
            self.status = .completed
            self.completedAt = event.time
        case .sagaCompensated:
            self.status = .compensated
            self.completedAt = event.time
        case .sagaParked:
            self.status = .parked
            if let step = event.step { self.stepIndex = step }
            if self.failure == nil {
                self.failure = SagaFailure(
                    cause: event.cause ?? .stepFailed, step: self.currentStep, reason: event.reason,
                    message: event.message)
            }
        case .sagaResumed:
            // In the direction in which it parked.
            self.status = self.isTurnedBack ? .compensating : .running
            if !self.isTurnedBack { self.failure = nil }
            for index in self.steps.indices { self.steps[index].resume() }
        }
        return SagaEvent(
            sequence: UInt32(self.lastSequence), time: event.time, type: event.type,
            step: event.type.isOfAStep ? event.step.map { self.steps[$0].name } ?? "" : "",
            stepIndex: event.step ?? self.stepIndex,
            attempt: event.attempt, message: event.message, sagaStatus: self.status, stepsDone: self.stepsDone,
            stepsTotal: self.steps.count, reason: event.reason, retryAt: event.retryAt)
    }

    private mutating func update(_ event: JournalEvent, _ change: (inout StepSnapshot) -> Void) {
        guard let index = event.step else { return }
        self.stepIndex = index
        change(&self.steps[index])
    }
}
