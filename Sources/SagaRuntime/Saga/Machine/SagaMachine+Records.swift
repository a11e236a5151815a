// What is written: one record a flush, made from a draft.

extension SagaMachine {
    func record(kind: SagaRecord.Kind, now: Timestamp, _ build: (inout SagaDraft) -> Void) -> SagaRecord {
        var draft = self.draft(now: now)
        build(&draft)
        return self.record(draft, kind: kind)
    }

    func draft(now: Timestamp) -> SagaDraft {
        SagaDraft(definition: self.definition, snapshot: self.snapshot, unanswered: self.commands, now: now)
    }

    func record(_ draft: SagaDraft, kind: SagaRecord.Kind) -> SagaRecord {
        let status = draft.snapshot.status
        let isOver = status.isTerminal
        var record = SagaRecord(
            expectedVersion: self.version, granted: draft.outcome,
            // Every other record follows something that came back (a retry follows a call), which is progress: what
            // crashes its server does so before that.
            adoptions: Self.isProgress(kind) ? 0 : self.adoptions,
            kind: isOver && kind != .create ? .end : kind,
            notAfter: self.isBoundByDeadline(status, kind) ? self.snapshot.deadline : nil)
        if !status.isActive { record.commandsSeen = self.commandsSeen }
        return record
    }

    /// Those that are consumed, and those that are known.
    var commandsSeen: Int { self.snapshot.commandsReceived + self.commands.count }

    /// Whether a record follows something that came back.
    private static func isProgress(_ kind: SagaRecord.Kind) -> Bool {
        switch kind {
        case .adopt, .intent, .sleep, .wake, .command: false
        case .create, .forward, .retry, .undo, .end, .park, .progress: true
        }
    }

    /// What goes forward was decided before the deadline, and must not be written after it.
    private func isBoundByDeadline(_ status: SagaStatus, _ kind: SagaRecord.Kind) -> Bool {
        if self.isPastPivot { return false }
        return switch (status, kind) {
        case (_, .create), (_, .adopt), (_, .sleep), (_, .wake), (_, .command): false
        case (.running, _), (.completed, _): true
        case (.compensating, _), (.compensated, _), (.parked, _): false
        }
    }

    // MARK: Forward

    /// Flush 1: SAGA_STARTED and everything up to the first intent.
    func firstRecord(_ new: NewSaga, now: Timestamp) -> SagaRecord {
        var draft = self.draft(now: now)
        var event = JournalEvent(type: .sagaStarted, time: now, step: nil)
        event.birth = Self.birth(of: new, definition: self.definition, now: self.snapshot.createdAt)
        draft.emit(event)
        var record = self.forwardRecord(draft, from: 0, kind: .create)
        record.birth = new
        return record
    }

    /// Goes forward from `index`; a database step on the way makes it a record of two outcomes.
    ///
    /// - Parameter withdrawn: a step that was started, did nothing, and waits for the database step.
    func forwardRecord(
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
        if self.definition.steps[step].claim != nil {
            // Its call is to clear the way.
            record.refused = refused.outcome
            return record
        }
        if let refusal = databaseStep.refusalOf?(refused.snapshot.view) ?? databaseStep.refusal {
            if let (step, error) = withdrawn {
                refused.emit(.stepFailed, step: step, attempt: refused.snapshot.steps[step].attempts, error: error)
            }
            refused.emit(.stepFailed, step: step, attempt: refused.snapshot.steps[step].attempts, error: refusal)
            refused.turnBack(cause: .stepFailed, step: step, error: refusal)
            record.refused = refused.outcome
            if !refused.snapshot.status.isActive { record.commandsSeen = self.commandsSeen }
        }
        return record
    }

    func successRecord(step index: Int, output: String, isLate: Bool, now: Timestamp) -> SagaRecord {
        if let claim = self.definition.steps[index].claim {
            if isLate { return self.timeOutRecord(step: index, outcomeUnknown: false, now: now) }
            return self.claimRecord(step: index, claim, found: output, now: now)
        }
        var draft = self.draft(now: now)
        draft.succeed(
            step: index, attempt: self.executeCall(step: index).attempt, output: output,
            flags: self.doubt(.execute(index)).isSent ? .outcomeUnknown : [], assumption: self.assumption)
        if isLate {
            // A success that comes after the deadline is undone too.
            draft.turnBack(cause: .timedOut, step: index, error: Self.timedOut)
            return self.record(draft, kind: .undo)
        }
        return self.forwardRecord(draft, from: index + 1, kind: .forward)
    }

    /// How long after a refused claim the way is looked at again.
    private static let claimPause: Duration = .milliseconds(250)

    /// The way is clear: the claim is tried once more. Somebody else may have been quicker; then the way is to be cleared again.
    private func claimRecord(step index: Int, _ claim: DatabaseStep, found: String, now: Timestamp) -> SagaRecord {
        let name = self.definition.steps[index].name
        var granted = self.draft(now: now)
        var refused = granted
        granted.succeed(step: index, attempt: self.executeCall(step: index).attempt, output: nil)
        _ = granted.advance(from: index + 1)
        refused.emit(self.progress(step: index, PendingJob(output: found, pollAfter: Self.claimPause), now: now))
        var record = self.record(granted, kind: .forward)
        var step = claim
        step.argument = { view in
            var view = view
            view.outputs[name] = found
            return claim.argument(view)
        }
        record.databaseStep = step
        record.refused = refused.outcome
        return record
    }

    /// Goes on where nothing of step `index` can have happened.
    func resumeRecord(from index: Int, now: Timestamp) -> SagaRecord {
        let draft = self.draft(now: now)
        let step = self.snapshot.steps[index]
        return self.forwardRecord(draft, from: step.isDone ? index + 1 : index, kind: .forward)
    }

    /// The intent of another attempt, where the one before it was withdrawn.
    func intentRecord(step index: Int, now: Timestamp) -> SagaRecord {
        let call = self.executeCall(step: index)
        return self.record(kind: .intent, now: now) { draft in
            draft.emit(.stepStarted, step: index, attempt: call.attempt, generation: call.generation)
        }
    }

    /// The other side works on it: what to ask about is durable before anything else happens.
    func progressRecord(step index: Int, _ job: PendingJob, now: Timestamp) -> SagaRecord {
        self.record(kind: .progress, now: now) { $0.emit(self.progress(step: index, job, now: now)) }
    }

    private func progress(step index: Int, _ job: PendingJob, now: Timestamp) -> JournalEvent {
        var event = JournalEvent(type: .stepProgress, time: now, step: index, flags: .outcomeUnknown)
        event.attempt = self.executeCall(step: index).attempt
        event.generation = max(self.snapshot.steps[index].generation, 1)
        event.message = Text.sanitised(job.note)
        event.retryAt = now + job.pollAfter
        event.output = job.output
        return event
    }

    func retryRecord(
        step index: Int, error: StepError, generation: Int, policy: RetryPolicy, now: Timestamp
    ) -> SagaRecord {
        let attempt = self.executeCall(step: index).attempt
        let delay = policy.delay(
            afterAttempt: attempt - self.snapshot.steps[index].forgivenAttempts, random: self.random(),
            atLeast: error.pause)
        return self.record(kind: .retry, now: now) { draft in
            draft.emit(
                .stepRetrying, step: index, attempt: attempt, generation: generation,
                flags: self.retryFlags(.execute(index)), error: error, retryAt: now + delay)
        }
    }

    /// A retry after a definite failure withdraws the intent, where doubt about it would cost something: whoever takes the saga
    /// up during the back-off then knows that nothing was sent.
    private func retryFlags(_ side: StepSide) -> JournalEvent.Flags {
        if self.doubt(side).isSent { return .outcomeUnknown }
        guard case .remote(let remote) = self.definition.steps[side.step].action else { return [] }
        return remote.isRepeatable ? [] : .withdrawn
    }

    /// What an earlier database step granted is unusable: it is done again, and then this step under a new generation.
    func redoRecord(
        step index: Int, redoing target: Int, attempt: Int, error: StepError, now: Timestamp
    ) -> SagaRecord {
        var draft = self.draft(now: now)
        draft.emit(
            .stepRetrying, step: index, attempt: attempt, generation: self.snapshot.steps[index].generation + 1,
            flags: .withdrawn, error: error, retryAt: now)
        return self.forwardRecord(draft, from: target, kind: .retry, withdrawn: (index, error))
    }

    // MARK: Turning back

    /// - Returns: past the pivot: the saga parks, as it is.
    func failRecord(step index: Int, error: StepError, outcomeUnknown: Bool, now: Timestamp) -> SagaRecord {
        if self.isPastPivot { return self.parkRecord(error, now: now) }
        return self.record(kind: .undo, now: now) { draft in
            draft.emit(
                .stepFailed, step: index, attempt: self.executeCall(step: index).attempt,
                generation: self.snapshot.steps[index].generation, flags: outcomeUnknown ? .outcomeUnknown : [],
                error: error)
            draft.turnBack(cause: .stepFailed, step: index, error: error)
        }
    }

    /// The call of step `index` succeeded; the database step behind it is what the database refuses.
    func blameRecord(step index: Int, output: String, error: StepError, now: Timestamp) -> SagaRecord {
        if self.isPastPivot { return self.parkRecord(error, now: now) }
        var draft = self.draft(now: now)
        draft.succeed(
            step: index, attempt: self.executeCall(step: index).attempt, output: output,
            flags: self.doubt(.execute(index)).isSent ? .outcomeUnknown : [])
        if case .databaseStep(let step, _) = draft.advance(from: index + 1) {
            draft.emit(.stepFailed, step: step, attempt: draft.snapshot.steps[step].attempts, error: error)
            draft.turnBack(cause: .stepFailed, step: step, error: error)
        }
        return self.record(draft, kind: .undo)
    }

    private static let timedOut = StepError(
        .refused, reason: "TIMED_OUT", message: "the saga's deadline passed before all steps were done")

    func timeOutRecord(step index: Int, outcomeUnknown: Bool, now: Timestamp) -> SagaRecord {
        self.turnBackRecord(
            cause: .timedOut, error: Self.timedOut, step: index, outcomeUnknown: outcomeUnknown, now: now)
    }

    private func turnBackRecord(
        cause: FailureCause, error: StepError, step index: Int, outcomeUnknown: Bool, now: Timestamp
    ) -> SagaRecord {
        self.record(kind: .undo, now: now) { draft in
            draft.turnBack(cause: cause, running: index, outcomeUnknown: outcomeUnknown, error: error)
        }
    }

    // MARK: Undo

    func undoneRecord(step index: Int, now: Timestamp) -> SagaRecord {
        self.record(kind: .undo, now: now) { draft in
            draft.compensated(step: index, assumption: self.undoAssumptions[index])
            draft.undo()
        }
    }

    /// The intent of another attempt, where the one before it was withdrawn.
    func undoIntentRecord(step index: Int, now: Timestamp) -> SagaRecord {
        self.record(kind: .intent, now: now) { draft in
            draft.emit(
                .stepCompensating, step: index, attempt: self.undoAttempt(step: index),
                generation: self.snapshot.steps[index].generation)
        }
    }

    /// An undo is tried again whatever the other side said, a refusal more slowly: only what nobody can decide parks at once.
    func undoFailedRecord(step index: Int, error: StepError, now: Timestamp) -> SagaRecord {
        let policy = self.definition.steps[index].undoRetry
        let attempt = self.undoAttempt(step: index)
        let counted = attempt - self.snapshot.steps[index].forgivenUndoAttempts
        let mayRetry =
            Mutant.undoGivesUpWhenRefused.isActive ? error.isRetryable : error.errorClass != .undecidable
        let isRetry = mayRetry && counted <= policy.maximumRetries
        return self.record(kind: isRetry ? .retry : .undo, now: now) { draft in
            if isRetry {
                let slow = error.isRetryable ? policy : policy.forRefusals
                let delay = slow.delay(afterAttempt: counted, random: self.random(), atLeast: error.pause)
                draft.emit(
                    .stepRetrying, step: index, attempt: attempt, flags: self.retryFlags(.undo(index)), error: error,
                    retryAt: now + delay)
            } else {
                draft.emit(.stepCompensationFailed, step: index, attempt: attempt, error: error)
            }
            draft.undo()
        }
    }

    /// What nobody can decide parks; unless somebody has decided it: a command that turns the saga back is obeyed instead.
    func parkRecord(_ error: StepError, now: Timestamp) -> SagaRecord {
        if self.isToldToTurnBack, let command = self.commands.first { return self.commandRecord(command, now: now) }
        return self.record(kind: .park, now: now) { draft in
            draft.emit(.sagaParked, step: self.snapshot.stepIndex, error: error)
        }
    }
}

extension StepError {
    /// What the other side asked to be left alone for.
    fileprivate var pause: Duration? {
        if case .throttled(let after) = self.errorClass { after } else { nil }
    }
}

extension RetryPolicy {
    /// A refusal may be a mistake in somebody's settings, and people take minutes to mend them.
    var forRefusals: RetryPolicy {
        RetryPolicy(
            maximumRetries: self.maximumRetries, initialDelay: min(self.initialDelay * 8, self.maximumDelay),
            maximumDelay: self.maximumDelay)
    }
}
