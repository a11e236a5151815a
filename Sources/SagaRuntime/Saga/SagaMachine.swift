/// Decides what a saga does next. Pure: no sockets, no SQL, no clock, no tasks, no logs.
///
/// The state has two halves. `snapshot` is what is durable: the fold of the events that are known to be committed. `position`
/// is what this process knows beyond that, and is lost with it: whether a call is under way, what it returned, and
/// whether an effect may exist.
///
/// The driver asks `next(now:)`, does what it says, reports back, and asks again. Everything that happens meanwhile (the
/// deadline, an operator's command) is only looked at between a flush's return and the next one, so that there is never
/// more than one record of a saga in flight.
struct SagaMachine: Sendable {
    enum Action: Sendable {
        /// Write this record and report with `recordWritten`.
        case write(SagaRecord)
        /// Call the other side and report with `callReturned`. It must be given up at `until`.
        case call(StepCall, until: Timestamp?)
        /// Nothing to do before `until`.
        case wait(until: Timestamp)
        /// Terminal or parked: nothing to do at all.
        case finished
    }

    /// A call to a remote step.
    struct StepCall: Sendable, Equatable {
        enum Kind: String, Sendable, CaseIterable { case execute, resolve, compensate }
        var kind: Kind
        var step: Int
        var attempt: Int
        var generation: Int
        var isInDoubt: Bool
        /// This very call may have been sent before: by a process that is gone, or without an answer.
        var isRepeat = false
    }

    /// How a call ended.
    enum CallOutcome: Sendable {
        case succeeded(output: String)
        case resolved(Resolution)
        case undone(Undone)
        case failed(StepError)
        /// Given up: the deadline came, or the call took longer than its limit. Counts as unknown.
        case abandoned

        /// Of a forward call: `nil` if it certainly did nothing; else what it made, where that is known.
        var mayHaveActed: String?? {
            switch self {
            case .succeeded(let output): .some(output)
            case .abandoned: .some(nil)
            case .failed(let error) where error.errorClass == .unknownOutcome: .some(nil)
            case .failed, .resolved, .undone: nil
            }
        }
    }

    /// How a flush ended.
    enum WriteOutcome: Sendable {
        /// Committed. `databaseOutput`: what the database step granted; `nil` with `granted` false if it refused.
        case committed(granted: Bool, databaseOutput: String?)
        /// The database won't have this record (SQLSTATE class 22, 23, …): its step fails with a fixed error.
        case rejected(StepError)
    }

    /// What this process knows about the current step beyond the journal.
    private enum Position: Sendable {
        /// An effect of the step whose intent is durable may exist: ask before anything else. `isInherited`: another
        /// process (or an older self) ran it; otherwise a call of this process ended without an answer.
        case doubtful(isInherited: Bool)
        /// The intent is durable and nothing of this attempt has been sent.
        case ready
        /// A forward call came back with this.
        case returned(Result<String, StepError>)
        /// Asked after the outcome: nothing there, and the settle time is over.
        case settledAbsent
        /// The database refused the record. `output`: the call's result in it, where a database step of the same record
        /// may be to blame: it is tried without that step first.
        case rejected(StepError, output: String?)
    }

    let definition: SagaDefinition
    private(set) var snapshot: SagaSnapshot
    private(set) var version: Int
    private(set) var adoptions: Int
    private var position: Position
    /// Not before this instant (a volatile back-off between questions; attempts that matter are durable).
    private var notBefore: Timestamp?
    private var questionsAsked = 0
    /// Another process may have sent the current step's call, and its effect may still appear, whatever a repeated call
    /// is answered.
    private var hasInheritedDoubt = false
    /// Nothing came of any call under the current generation: all are settled, and the newest found nothing.
    private var doubtIsOver = false
    /// Per step in doubt: the last instant at which an effect may have been sent.
    private var lastPossibleSend: [Int: Timestamp] = [:]
    /// Why the newest call ended without a definite answer.
    private var unansweredReason = "it was not answered"
    /// Undo of a step in doubt that found nothing: asked again once the settle time is over.
    private var undoNotBefore: [Int: Timestamp] = [:]
    /// Undos that may have been sent before without an answer.
    private var repeatedUndo: Set<Int> = []
    /// Undos that ended, not recorded yet.
    private var resolvedUndo: [Int: Undone] = [:]
    private var undoErrors: [Int: StepError] = [:]
    private var birth: NewSaga?
    private var announceAdoption = false
    private var isPoisoned = false
    private var isCancelled: StepError?
    private var random: @Sendable () -> Double
    /// Secrets say nothing to the machine, but the settle time may depend on options.
    private let secrets: [UInt8]

    /// A new saga: its first action is to write flush 1.
    init(
        definition: SagaDefinition, new: NewSaga, now: Timestamp, random: @escaping @Sendable () -> Double
    ) {
        self.definition = definition
        self.birth = new
        self.secrets = new.secrets
        self.version = 0
        self.adoptions = 0
        self.position = .ready
        self.random = random
        self.snapshot = SagaSnapshot(
            id: new.id, birth: Self.birth(of: new, definition: definition, now: now), userID: new.userID,
            tenantID: new.tenantID, resourceID: new.resourceID, batchID: new.batchID, time: now,
            stepNames: definition.steps.map(\.name))
    }

    /// A saga taken up from its rows.
    ///
    /// - Parameters:
    ///   - adoptions: how often it was taken up without progress, this time included.
    ///   - isPoisoned: it was taken up too often: park it.
    init(
        definition: SagaDefinition, snapshot: SagaSnapshot, version: Int, adoptions: Int, isPoisoned: Bool,
        announceAdoption: Bool, secrets: [UInt8], now: Timestamp, random: @escaping @Sendable () -> Double
    ) {
        self.definition = definition
        self.snapshot = snapshot
        self.version = version
        self.adoptions = adoptions
        self.isPoisoned = isPoisoned
        self.announceAdoption = announceAdoption
        self.secrets = secrets
        self.position = .doubtful(isInherited: true)
        self.random = random
        for index in snapshot.steps.indices where snapshot.steps[index].isInDoubt {
            self.lastPossibleSend[index] = now
        }
        self.repeatedUndo = Set(
            snapshot.steps.indices.filter { index in
                let step = snapshot.steps[index]
                guard step.status == .compensating else { return false }
                // Every attempt so far was answered, and before its back-off is over nobody has made another.
                if let retryAt = step.retryAt, retryAt > now, !step.undoHadUnknownOutcome { return false }
                return true
            })
    }

    private static func birth(of new: NewSaga, definition: SagaDefinition, now: Timestamp) -> SagaBirth {
        SagaBirth(
            type: new.type, definitionVersion: definition.version, deadline: now + new.timeout,
            requestID: new.requestID, request: new.request, hasSecrets: !new.secrets.isEmpty)
    }

    // MARK: What next

    /// Asking twice gives the same answer.
    func next(now: Timestamp) -> Action {
        if let birth = self.birth { return .write(self.firstRecord(birth, now: now)) }
        switch self.snapshot.status {
        case .completed, .compensated, .parked:
            return .finished
        case .running, .compensating:
            break
        }
        if self.isPoisoned {
            return .write(self.parkRecord(Self.poison(self.adoptions), now: now))
        }
        if self.announceAdoption {
            return .write(self.record(kind: .adopt, now: now) { $0.emit(.sagaAdopted) })
        }
        return self.snapshot.status == .running ? self.nextForward(now: now) : self.nextUndo(now: now)
    }

    /// Flush 1: SAGA_STARTED and everything up to the first intent.
    private func firstRecord(_ new: NewSaga, now: Timestamp) -> SagaRecord {
        var draft = SagaDraft(definition: self.definition, snapshot: self.snapshot, now: now)
        var event = JournalEvent(type: .sagaStarted, time: now, step: nil)
        event.birth = Self.birth(of: new, definition: self.definition, now: self.snapshot.createdAt)
        draft.emit(event)
        var record = self.forwardRecord(draft, from: 0, kind: .create)
        record.birth = new
        return record
    }

    private static func poison(_ adoptions: Int) -> StepError {
        StepError(
            .undecidable, reason: "POISON",
            message: "taken up \(adoptions) times without progress; it may crash its server")
    }

    // MARK: Forward

    private func nextForward(now: Timestamp) -> Action {
        let index = self.snapshot.stepIndex
        let step = self.snapshot.steps[index]
        let isLate = now >= self.snapshot.deadline

        switch self.position {
        case .rejected(let error, let output?):
            return .write(self.blameRecord(step: index, output: output, error: error, now: now))

        case .rejected(let error, nil):
            return .write(self.failRecord(step: index, error: error, outcomeUnknown: step.isInDoubt, now: now))

        case .returned(.success(let output)):
            return .write(self.successRecord(step: index, output: output, isLate: isLate, now: now))

        case .returned(.failure(let error)):
            return self.afterFailure(error, step: index, isLate: isLate, now: now)

        case .settledAbsent:
            if isLate { return .write(self.timeOutRecord(step: index, outcomeUnknown: false, now: now)) }
            // Definitely nothing happened: the next attempt has a key of its own, and says so before it starts.
            let attempt = self.executeCall(step: index).attempt
            let error = StepError(
                .unavailable, reason: self.definition.steps[index].unavailableReason,
                message: "the outcome of attempt \(attempt) was unknown; nothing came of it")
            guard attempt <= self.definition.steps[index].retry.maximumRetries else {
                return .write(self.failRecord(step: index, error: error, outcomeUnknown: false, now: now))
            }
            return .write(self.retryRecord(step: index, error: error, generation: step.generation + 1, now: now))

        case .ready:
            // Nothing of this attempt was sent; an older one's effect may still appear.
            if isLate {
                return .write(self.timeOutRecord(step: index, outcomeUnknown: self.hasDoubt(index), now: now))
            }
            if self.isCancelled != nil {
                return .write(self.cancelRecord(step: index, outcomeUnknown: self.hasDoubt(index), now: now))
            }
            let due = max(step.retryAt ?? now, self.notBefore ?? now)
            if due > now { return .wait(until: min(due, self.snapshot.deadline)) }
            return .call(self.executeCall(step: index), until: self.callDeadline(step: index, now: now))

        case .doubtful:
            // A database step is part of its flush: found started and not finished, it did not happen.
            guard case .remote = self.definition.steps[index].action, step.status == .running else {
                if isLate { return .write(self.timeOutRecord(step: index, outcomeUnknown: false, now: now)) }
                return .write(self.resumeRecord(from: index, now: now))
            }
            if isLate { return .write(self.timeOutRecord(step: index, outcomeUnknown: true, now: now)) }
            if self.isCancelled != nil { return .write(self.cancelRecord(step: index, outcomeUnknown: true, now: now)) }
            if let notBefore = self.notBefore, notBefore > now {
                return .wait(until: min(notBefore, self.snapshot.deadline))
            }
            let call = StepCall(
                kind: .resolve, step: index, attempt: step.attempts, generation: step.generation, isInDoubt: true)
            return .call(call, until: self.callDeadline(step: index, now: now))
        }
    }

    /// The attempt that a call makes: the one that its STEP_STARTED or the STEP_RETRYING before it announced.
    private func executeCall(step index: Int) -> StepCall {
        let step = self.snapshot.steps[index]
        let attempt = step.retryAt == nil ? max(step.attempts, 1) : step.attempts + 1
        return StepCall(
            kind: .execute, step: index, attempt: attempt, generation: max(step.generation, 1),
            isInDoubt: attempt > 1)
    }

    private func callDeadline(step index: Int, now: Timestamp) -> Timestamp {
        min(now + self.definition.steps[index].callLimit, self.snapshot.deadline)
    }

    private func afterFailure(_ error: StepError, step index: Int, isLate: Bool, now: Timestamp) -> Action {
        let call = self.executeCall(step: index)
        let isUnknown = error.errorClass == .unknownOutcome || (self.hasDoubt(index) && !self.doubtIsOver)
        if case .undecidable = error.errorClass { return .write(self.parkRecord(error, now: now)) }
        if isLate { return .write(self.timeOutRecord(step: index, outcomeUnknown: isUnknown, now: now)) }
        if self.isCancelled != nil {
            return .write(self.cancelRecord(step: index, outcomeUnknown: isUnknown, now: now))
        }
        // Not while an earlier call of this generation may still take effect.
        if case .conflict(let redone) = error.errorClass, !isUnknown,
            let target = self.definition.steps.firstIndex(where: { $0.name == redone }), target < index,
            call.attempt < Self.maximumConflicts
        {
            return .write(self.redoRecord(step: index, redoing: target, attempt: call.attempt, error: error, now: now))
        }
        if error.isRetryable, call.attempt <= self.definition.steps[index].retry.maximumRetries {
            return .write(self.retryRecord(step: index, error: error, generation: call.generation, now: now))
        }
        return .write(self.failRecord(step: index, error: error, outcomeUnknown: isUnknown, now: now))
    }

    /// An effect of an earlier call under the current generation may still appear.
    private func hasDoubt(_ index: Int) -> Bool {
        self.hasInheritedDoubt || self.snapshot.steps[index].hadUnknownOutcome
    }

    /// How many pairs of ports are tried before the step fails.
    private static let maximumConflicts = 20

    // MARK: Undo

    private func nextUndo(now: Timestamp) -> Action {
        let draft = SagaDraft(definition: self.definition, snapshot: self.snapshot, now: now)
        // Results first, so that nothing that is known is lost to a crash.
        if let (index, error) = self.undoErrors.first {
            return .write(self.undoFailedRecord(step: index, error: error, now: now))
        }
        if let index = self.resolvedUndo.keys.max() {
            return .write(
                self.record(kind: .undo, now: now) { draft in
                    draft.compensated(step: index)
                    draft.undo()
                })
        }
        var earliest: Timestamp?
        for index in self.snapshot.steps.indices.reversed() where self.snapshot.steps[index].status == .compensating {
            let step = self.snapshot.steps[index]
            guard self.definition.steps[index].undoIsRemote else {
                // Its flush held its end too; a definition that changed its mind about this finishes it here.
                return .write(
                    self.record(kind: .undo, now: now) { draft in
                        draft.compensated(step: index)
                        draft.undo()
                    })
            }
            let due = max(step.retryAt ?? now, self.undoNotBefore[index] ?? now)
            if due <= now {
                let attempt = step.retryAt == nil ? max(step.compensationAttempts, 1) : step.compensationAttempts + 1
                let call = StepCall(
                    kind: .compensate, step: index, attempt: attempt, generation: max(step.generation, 1),
                    isInDoubt: step.isInDoubt, isRepeat: self.repeatedUndo.contains(index))
                return .call(call, until: now + self.definition.steps[index].callLimit)
            }
            earliest = min(earliest ?? due, due)
        }
        // Something else may be undone while one waits for its next attempt; or the saga is over.
        if draft.nextUndo(ignoringRetries: false) != nil || earliest == nil {
            return .write(self.record(kind: .undo, now: now) { $0.undo() })
        }
        return .wait(until: earliest ?? now)
    }

    // MARK: What came back

    mutating func callReturned(_ call: StepCall, _ outcome: CallOutcome, now: Timestamp) {
        switch (call.kind, outcome) {
        case (.execute, .succeeded(let output)):
            self.position = .returned(.success(output))

        case (.execute, .failed(let error)) where error.errorClass == .leaseLost:
            self.position = .ready

        case (.execute, .failed(let error)) where error.errorClass == .unknownOutcome:
            self.unansweredReason = error.message
            self.becomeDoubtful(step: call.step, now: now)

        case (.execute, .failed(let error)):
            if case .conflict = error.errorClass, self.hasDoubt(call.step) {
                self.conflictInDoubt(error, step: call.step, now: now)
            } else {
                self.position = .returned(.failure(error))
            }

        case (.execute, _):
            self.unansweredReason = "it took longer than its limit"
            self.becomeDoubtful(step: call.step, now: now)

        case (.resolve, .resolved(.happened(let output))):
            self.position = .returned(.success(output))

        case (.resolve, .resolved(.repeatable)):
            self.repeatUnderSameKey(step: call.step)

        case (.resolve, .resolved(.absent)):
            let settled = self.settledAt(step: call.step, now: now)
            if now >= settled {
                self.position = .settledAbsent
                self.hasInheritedDoubt = false
            } else {
                self.notBefore = settled
            }

        case (.resolve, .resolved(.undecidable(var error))):
            error.errorClass = .undecidable
            self.position = .returned(.failure(error))

        case (.resolve, .failed(let error)) where !error.isRetryable:
            self.position = .returned(.failure(StepError(.undecidable, reason: error.reason, message: error.message)))

        case (.resolve, _):
            self.questionsAsked += 1
            self.notBefore =
                now
                + RetryPolicy.question.delay(
                    afterAttempt: self.questionsAsked, random: self.random(), atLeast: .milliseconds(50))

        case (.compensate, .undone(.undone)):
            self.resolvedUndo[call.step] = .undone

        case (.compensate, .undone(.nothingFound)):
            let settled = self.settledAt(step: call.step, now: now)
            if !call.isInDoubt || now >= settled {
                self.resolvedUndo[call.step] = .nothingFound
            } else {
                self.undoNotBefore[call.step] = settled
            }

        case (.compensate, .failed(let error)) where error.errorClass == .leaseLost:
            break

        case (.compensate, .failed(let error)):
            if error.errorClass == .unknownOutcome { self.repeatedUndo.insert(call.step) }
            self.undoErrors[call.step] = error

        case (.compensate, _):
            self.repeatedUndo.insert(call.step)
            self.undoErrors[call.step] = StepError(
                .unknownOutcome, reason: "TIMED_OUT", message: "the undo took longer than its limit")
        }
    }

    /// The live case of a lost reply: ask before anything else. The time of the send is at most now.
    private mutating func becomeDoubtful(step: Int, now: Timestamp) {
        self.lastPossibleSend[step] = now
        self.position = .doubtful(isInherited: false)
        self.doubtIsOver = false
        self.questionsAsked = 0
        self.notBefore = nil
    }

    /// The key's effect isn't there now, but that of an earlier call may still appear: the same call again, once that is
    /// settled, finds it or knows that there is none.
    private mutating func conflictInDoubt(_ error: StepError, step: Int, now: Timestamp) {
        let sent = self.lastPossibleSend[step] ?? now
        self.lastPossibleSend[step] = sent
        let settled = self.settledAt(step: step, now: now)
        if now >= settled {
            self.doubtIsOver = true
            self.position = .returned(.failure(error))
        } else {
            self.position = .ready
            self.notBefore = settled
        }
    }

    /// Create is unique by key: the same attempt may be made again at once; its number rises so that it is bounded.
    private mutating func repeatUnderSameKey(step index: Int) {
        if case .doubtful(isInherited: true) = self.position {
            // A crash is no failure of the other side: the same attempt goes on.
            self.position = .ready
            self.hasInheritedDoubt = true
            return
        }
        let error = StepError(
            .unknownOutcome, reason: self.definition.steps[index].unavailableReason,
            message:
                "the outcome of attempt \(self.executeCall(step: index).attempt) is unknown: \(self.unansweredReason)")
        self.position = .returned(.failure(error))
    }

    private func settledAt(step: Int, now: Timestamp) -> Timestamp {
        (self.lastPossibleSend[step] ?? now) + self.settleTime(step: step)
    }

    private func settleTime(step: Int) -> Duration {
        guard case .remote(let remote) = self.definition.steps[step].action else { return .zero }
        return remote.settleTime(request: self.snapshot.request, secrets: self.secrets)
    }

    /// The call that is due must not go out before `until`, since its dependency is down. Nothing durable: no attempt is used
    /// up. What doesn't depend on it goes on.
    mutating func postpone(_ call: StepCall, until: Timestamp) {
        switch call.kind {
        case .compensate: self.undoNotBefore[call.step] = until
        case .execute, .resolve: self.notBefore = until
        }
    }

    // MARK: What the driver asks about a call

    /// How long after its end its effect may still appear.
    func settleTime(of call: StepCall) -> Duration { self.settleTime(step: call.step) }

    /// The longest that it takes.
    func callLimit(of call: StepCall) -> Duration { self.definition.steps[call.step].callLimit }

    /// The longest that any call of this saga takes.
    var longestCall: Duration { self.definition.steps.map(\.callLimit).max() ?? .zero }

    /// Whom it calls.
    func dependency(of call: StepCall) -> String {
        let step = self.definition.steps[call.step]
        guard case .remote(let remote) = step.action else { return step.name }
        return remote.dependency(request: self.snapshot.request) ?? step.name
    }

    mutating func recordWritten(_ record: SagaRecord, _ outcome: WriteOutcome, now: Timestamp) -> [SagaEvent] {
        switch outcome {
        case .rejected(let error):
            self.birth = nil
            var output: String?
            if record.databaseStep != nil, case .returned(.success(let result)) = self.position { output = result }
            self.position = .rejected(error, output: output)
            return []
        case .committed(let granted, let databaseOutput):
            self.birth = nil
            self.version = record.expectedVersion + 1
            self.adoptions = record.adoptions
            self.announceAdoption = false
            self.isPoisoned = false
            if record.kind != .adopt { self.position = .ready }
            self.notBefore = nil
            self.questionsAsked = 0
            // A retry says itself that an outcome is unknown; anything else has left the step behind.
            if record.kind != .adopt { self.hasInheritedDoubt = false }
            self.doubtIsOver = false
            let written = granted ? record.granted : (record.refused ?? record.granted)
            var events: [SagaEvent] = []
            for event in written.events {
                if let step = event.step, self.snapshot.status == .compensating {
                    self.resolvedUndo[step] = nil
                    self.undoErrors[step] = nil
                }
                if let seen = try? self.snapshot.apply(event, databaseOutput: databaseOutput) { events.append(seen) }
            }
            return events
        }
    }

    /// An operator's wish to stop forward work (or a deletion that came while the device was being created).
    mutating func cancel(_ error: StepError) { self.isCancelled = error }

    // MARK: Records

    private func record(kind: SagaRecord.Kind, now: Timestamp, _ build: (inout SagaDraft) -> Void) -> SagaRecord {
        var draft = SagaDraft(definition: self.definition, snapshot: self.snapshot, now: now)
        build(&draft)
        return self.record(draft, kind: kind)
    }

    private func record(_ draft: SagaDraft, kind: SagaRecord.Kind) -> SagaRecord {
        let isOver = draft.snapshot.status.isTerminal
        return SagaRecord(
            expectedVersion: self.version, granted: draft.outcome,
            // Every other record follows something that came back (a retry follows a call), which is progress: what
            // crashes its server does so before that.
            adoptions: kind == .adopt ? self.adoptions : 0,
            kind: isOver && kind != .create ? .end : kind,
            notAfter: self.isBoundByDeadline(draft.snapshot.status, kind) ? self.snapshot.deadline : nil)
    }

    /// What goes forward was decided before the deadline, and must not be written after it.
    private func isBoundByDeadline(_ status: SagaStatus, _ kind: SagaRecord.Kind) -> Bool {
        switch (status, kind) {
        case (_, .create), (_, .adopt): false
        case (.running, _), (.completed, _): true
        case (.compensating, _), (.compensated, _), (.parked, _): false
        }
    }

    /// Goes forward from `index`; a database step on the way makes it a record of two outcomes.
    ///
    /// - Parameter withdrawn: a step that was started, did nothing, and waits for the database step.
    private func forwardRecord(
        _ draft: SagaDraft, from index: Int, kind: SagaRecord.Kind, withdrawn: (step: Int, error: StepError)? = nil
    ) -> SagaRecord {
        var granted = draft
        guard case .databaseStep(let step, let databaseStep) = granted.advance(from: index) else {
            return self.record(granted, kind: kind)
        }
        var refused = granted
        // The output is the database's to give; a step that never refuses has none.
        granted.succeed(
            step: step, attempt: granted.snapshot.steps[step].attempts,
            output: databaseStep.refusal == nil ? "" : nil)
        // A second database step in a row takes a flush of its own: it may need the first one's output.
        if step + 1 < self.definition.steps.count, case .database = self.definition.steps[step + 1].action {
        } else {
            _ = granted.advance(from: step + 1)
        }
        var record = self.record(granted, kind: kind)
        record.databaseStep = databaseStep
        if let refusal = databaseStep.refusal {
            if let (step, error) = withdrawn {
                refused.emit(.stepFailed, step: step, attempt: refused.snapshot.steps[step].attempts, error: error)
            }
            refused.emit(.stepFailed, step: step, attempt: refused.snapshot.steps[step].attempts, error: refusal)
            refused.turnBack(cause: .stepFailed, step: step, error: refusal)
            record.refused = refused.outcome
        }
        return record
    }

    private func successRecord(step index: Int, output: String, isLate: Bool, now: Timestamp) -> SagaRecord {
        var draft = SagaDraft(definition: self.definition, snapshot: self.snapshot, now: now)
        draft.succeed(step: index, attempt: self.executeCall(step: index).attempt, output: output)
        if isLate {
            // A success that comes after the deadline is undone too.
            draft.turnBack(cause: .timedOut, step: index, error: Self.timedOut)
            return self.record(draft, kind: .undo)
        }
        if let cancelled = self.isCancelled, index + 1 < self.definition.steps.count {
            draft.turnBack(cause: .cancelled, step: index, error: cancelled)
            return self.record(draft, kind: .undo)
        }
        return self.forwardRecord(draft, from: index + 1, kind: .forward)
    }

    /// Goes on where nothing of step `index` can have happened.
    private func resumeRecord(from index: Int, now: Timestamp) -> SagaRecord {
        let draft = SagaDraft(definition: self.definition, snapshot: self.snapshot, now: now)
        let step = self.snapshot.steps[index]
        return self.forwardRecord(draft, from: step.isDone ? index + 1 : index, kind: .forward)
    }

    private func retryRecord(step index: Int, error: StepError, generation: Int, now: Timestamp) -> SagaRecord {
        let policy = self.definition.steps[index].retry
        let attempt = self.executeCall(step: index).attempt
        var atLeast: Duration?
        if case .throttled(let after) = error.errorClass { atLeast = after }
        let delay = policy.delay(afterAttempt: attempt, random: self.random(), atLeast: atLeast)
        return self.record(kind: .retry, now: now) { draft in
            draft.emit(
                .stepRetrying, step: index, attempt: attempt, generation: generation,
                flags: error.errorClass == .unknownOutcome || self.hasInheritedDoubt ? .outcomeUnknown : [],
                error: error, retryAt: now + delay)
        }
    }

    /// What an earlier database step granted is unusable: it is done again, and then this step under a new generation.
    private func redoRecord(
        step index: Int, redoing target: Int, attempt: Int, error: StepError, now: Timestamp
    ) -> SagaRecord {
        var draft = SagaDraft(definition: self.definition, snapshot: self.snapshot, now: now)
        draft.emit(
            .stepRetrying, step: index, attempt: attempt, generation: self.snapshot.steps[index].generation + 1,
            flags: .withdrawn, error: error, retryAt: now)
        return self.forwardRecord(draft, from: target, kind: .retry, withdrawn: (index, error))
    }

    private func failRecord(step index: Int, error: StepError, outcomeUnknown: Bool, now: Timestamp) -> SagaRecord {
        self.record(kind: .undo, now: now) { draft in
            draft.emit(
                .stepFailed, step: index, attempt: self.executeCall(step: index).attempt,
                generation: self.snapshot.steps[index].generation, flags: outcomeUnknown ? .outcomeUnknown : [],
                error: error)
            draft.turnBack(cause: .stepFailed, step: index, error: error)
        }
    }

    /// The call of step `index` succeeded; the database step behind it is what the database refuses.
    private func blameRecord(step index: Int, output: String, error: StepError, now: Timestamp) -> SagaRecord {
        var draft = SagaDraft(definition: self.definition, snapshot: self.snapshot, now: now)
        draft.succeed(step: index, attempt: self.executeCall(step: index).attempt, output: output)
        if case .databaseStep(let step, _) = draft.advance(from: index + 1) {
            draft.emit(.stepFailed, step: step, attempt: draft.snapshot.steps[step].attempts, error: error)
            draft.turnBack(cause: .stepFailed, step: step, error: error)
        }
        return self.record(draft, kind: .undo)
    }

    private static let timedOut = StepError(
        .refused, reason: "TIMED_OUT", message: "the saga's deadline passed before all steps were done")

    private func timeOutRecord(step index: Int, outcomeUnknown: Bool, now: Timestamp) -> SagaRecord {
        self.turnBackRecord(
            cause: .timedOut, error: Self.timedOut, step: index, outcomeUnknown: outcomeUnknown, now: now)
    }

    private func cancelRecord(step index: Int, outcomeUnknown: Bool, now: Timestamp) -> SagaRecord {
        let error = self.isCancelled ?? StepError(.refused, reason: "CANCELLED", message: "cancelled")
        return self.turnBackRecord(
            cause: .cancelled, error: error, step: index, outcomeUnknown: outcomeUnknown, now: now)
    }

    private func turnBackRecord(
        cause: FailureCause, error: StepError, step index: Int, outcomeUnknown: Bool, now: Timestamp
    ) -> SagaRecord {
        self.record(kind: .undo, now: now) { draft in
            if self.snapshot.steps[index].status == .running {
                draft.emit(
                    .stepFailed, step: index, attempt: self.snapshot.steps[index].attempts,
                    flags: outcomeUnknown ? .outcomeUnknown : [], error: error)
            }
            draft.turnBack(cause: cause, step: index, error: error)
        }
    }

    private func undoFailedRecord(step index: Int, error: StepError, now: Timestamp) -> SagaRecord {
        let step = self.snapshot.steps[index]
        let policy = self.definition.steps[index].undoRetry
        let attempt = step.retryAt == nil ? max(step.compensationAttempts, 1) : step.compensationAttempts + 1
        let isRetry = error.isRetryable && attempt <= policy.maximumRetries
        return self.record(kind: isRetry ? .retry : .undo, now: now) { draft in
            if isRetry {
                var atLeast: Duration?
                if case .throttled(let after) = error.errorClass { atLeast = after }
                let delay = policy.delay(afterAttempt: attempt, random: self.random(), atLeast: atLeast)
                draft.emit(
                    .stepRetrying, step: index, attempt: attempt,
                    flags: self.repeatedUndo.contains(index) ? .outcomeUnknown : [], error: error, retryAt: now + delay)
            } else {
                draft.emit(.stepCompensationFailed, step: index, attempt: attempt, error: error)
            }
            draft.undo()
        }
    }

    private func parkRecord(_ error: StepError, now: Timestamp) -> SagaRecord {
        self.record(kind: .park, now: now) { draft in
            draft.emit(.sagaParked, step: self.snapshot.stepIndex, error: error)
        }
    }
}

extension RetryPolicy {
    /// Between questions after an unknown outcome: 100 ms doubling to 5 s, bounded by the saga's deadline alone.
    static let question = RetryPolicy(
        maximumRetries: .max, initialDelay: .milliseconds(100), maximumDelay: .seconds(5))
}
