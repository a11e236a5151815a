extension SagaMachine {
    /// What a running saga does next.
    func nextForward(now: Moment) -> Action {
        let index = self.snapshot.stepIndex
        let step = self.snapshot.steps[index]
        let isPastPivot = self.isPastPivot
        let isLate = now.time >= self.snapshot.deadline && !isPastPivot

        switch self.position {
        case .rejected(let error, let output?) where self.definition.steps[index].claim == nil:
            return .write(self.blameRecord(step: index, output: output, error: error, now: now.time))
        case .rejected(let error, _):
            return .write(self.failRecord(step: index, error: error, outcomeUnknown: step.isInDoubt, now: now.time))
        case .returned(.success(let output)):
            return .write(self.successRecord(step: index, output: output, isLate: isLate, now: now.time))
        case .returned(.failure(let error)):
            return self.afterFailure(error, step: index, isLate: isLate, now: now.time)
        case .progressed(let job):
            return .write(self.progressRecord(step: index, job, now: now.time))
        case .idle, .repeatable:
            break
        }
        if let command = self.commands.first { return .write(self.commandRecord(command, now: now.time)) }

        let doubt = self.doubt(.execute(index))
        // A database step is part of its flush: found started and not finished, it did not happen.
        guard case .remote = self.definition.steps[index].action, step.status == .running else {
            if isLate { return .write(self.timeOutRecord(step: index, outcomeUnknown: false, now: now.time)) }
            return .write(self.resumeRecord(from: index, now: now.time))
        }
        if isLate { return .write(self.timeOutRecord(step: index, outcomeUnknown: doubt.isSent, now: now.time)) }
        let pause = (self.due[.execute(index)] ?? now.uptime) - now.uptime
        if pause > .zero { return .wait(isPastPivot ? pause : min(pause, self.snapshot.deadline - now.time)) }

        if step.isPending {
            let call = StepCall(
                kind: .poll, step: index, attempt: step.attempts, generation: step.generation, isInDoubt: true)
            return .call(call, limit: self.callLimit(step: index, now: now.time))
        }
        switch (doubt, self.position) {
        case (.none, _):
            return .write(self.intentRecord(step: index, now: now.time))
        case (.unsent, _), (.sent, .repeatable), (.settled, .repeatable):
            return .call(self.executeCall(step: index), limit: self.callLimit(step: index, now: now.time))
        case (.sent, _):
            let call = StepCall(
                kind: .resolve, step: index, attempt: step.attempts, generation: step.generation, isInDoubt: true)
            return .call(call, limit: self.callLimit(step: index, now: now.time))
        case (.settled, _):
            return .write(self.absentRecord(step: index, now: now.time))
        }
    }

    /// The attempt that a call makes: the one that its STEP_STARTED or the STEP_RETRYING before it announced.
    func executeCall(step index: Int) -> StepCall {
        let step = self.snapshot.steps[index]
        let attempt = step.retryAt == nil ? max(step.attempts, 1) : step.attempts + 1
        return StepCall(
            kind: .execute, step: index, attempt: attempt, generation: max(step.generation, 1),
            isInDoubt: attempt > 1)
    }

    private func callLimit(step index: Int, now: Timestamp) -> Duration {
        let limit = self.definition.steps[index].callLimit
        return self.isPastPivot ? limit : min(limit, self.snapshot.deadline - now)
    }

    /// The pivot's intent is durable: from then on the saga only goes forward.
    var isPastPivot: Bool { self.definition.isPastPivot(self.snapshot) }

    /// How often a step is tried: past the pivot for hours, as an undo is.
    private func retryPolicy(step index: Int) -> RetryPolicy {
        self.isPastPivot ? self.definition.steps[index].undoRetry : self.definition.steps[index].retry
    }

    /// Whether another attempt may follow this one.
    private func mayRetry(step index: Int, after attempt: Int) -> Bool {
        attempt - self.snapshot.steps[index].forgivenAttempts <= self.retryPolicy(step: index).maximumRetries
    }

    /// Nothing came of the calls of this generation: the next attempt has a key of its own, and says so before it starts.
    private func absentRecord(step index: Int, now: Timestamp) -> SagaRecord {
        let attempt = self.executeCall(step: index).attempt
        let error = StepError(
            .unavailable, reason: self.definition.steps[index].unavailableReason,
            message: "the outcome of attempt \(attempt) was unknown; nothing came of it")
        guard self.mayRetry(step: index, after: attempt) else {
            return self.failRecord(step: index, error: error, outcomeUnknown: false, now: now)
        }
        let generation = self.snapshot.steps[index].generation + 1
        return self.retryRecord(
            step: index, error: error, generation: generation, policy: self.retryPolicy(step: index), now: now)
    }

    private func afterFailure(_ error: StepError, step index: Int, isLate: Bool, now: Timestamp) -> Action {
        let call = self.executeCall(step: index)
        // A definite answer to one call says nothing about an unanswered one before it.
        let isUnknown = self.doubt(.execute(index)).isSent
        if case .undecidable = error.errorClass { return .write(self.parkRecord(error, now: now)) }
        if isLate { return .write(self.timeOutRecord(step: index, outcomeUnknown: isUnknown, now: now)) }
        // Not while an earlier call of this generation may still take effect.
        if case .conflict(let redone) = error.errorClass, !isUnknown,
            let target = self.definition.steps.firstIndex(where: { $0.name == redone }), target < index,
            call.attempt < Self.maximumConflicts
        {
            return .write(self.redoRecord(step: index, redoing: target, attempt: call.attempt, error: error, now: now))
        }
        if error.isRetryable || self.isPastPivot, self.mayRetry(step: index, after: call.attempt) {
            let policy = self.retryPolicy(step: index)
            return .write(
                self.retryRecord(
                    step: index, error: error, generation: call.generation,
                    policy: error.isRetryable ? policy : policy.forRefusals, now: now))
        }
        return .write(self.failRecord(step: index, error: error, outcomeUnknown: isUnknown, now: now))
    }

    /// How many pairs of ports are tried before the step fails.
    private static let maximumConflicts = 20

    // MARK: What came back

    mutating func executed(_ call: StepCall, _ outcome: CallOutcome, asked: Moment, now: Moment) {
        let side = StepSide.execute(call.step)
        if call.isProbe, outcome.sign(wasCutShort: false) == .failed {
            // Whom it calls is still down.
            self.survived()
            if !outcome.isDefinite { self.becomeDoubtful(call, reason: "it was not answered", now: now) }
            return
        }
        switch outcome {
        case .succeeded(let output):
            self.position = .returned(.success(output))
        case .pending(let job):
            self.position = .progressed(job)
        case .notSent:
            self.askAgain(call, now: now)
        case .failed(let error) where error.errorClass == .unknownOutcome:
            self.becomeDoubtful(call, reason: error.message, now: now)
        case .failed(let error):
            if case .conflict = error.errorClass, let settled = self.tooEarly(side, asked: asked.uptime) {
                // The key's effect wasn't there, but that of an earlier call may still appear: the same call again, once
                // that is settled, finds it or knows that there is none.
                self.position = .repeatable
                self.postpone(side, until: settled, SagaWait(reason: .settleTime))
            } else {
                if case .conflict = error.errorClass { self.settle(side) }
                // Whatever came of it, nobody can be asked.
                if case .undecidable = error.errorClass { self.becomeDoubtful(side, now: now) }
                self.position = .returned(.failure(error))
            }
        case .abandoned, .resolved, .undone:
            self.becomeDoubtful(call, reason: "it took longer than its limit", now: now)
        }
    }

    /// The live case of a lost reply: ask before anything else.
    private mutating func becomeDoubtful(_ call: StepCall, reason: String, now: Moment) {
        self.becomeDoubtful(.execute(call.step), now: now)
        self.unansweredReason = reason
        self.position = .idle
        self.questionsAsked = 0
        self.due[.execute(call.step)] = nil
    }

    mutating func resolved(_ call: StepCall, _ outcome: CallOutcome, asked: Moment, now: Moment) {
        let side = StepSide.execute(call.step)
        switch outcome {
        case .resolved(.happened(let output)):
            // What one call made says nothing about others.
            if self.unanswered[side]?.maybeSeveral == false || self.tooEarly(side, asked: asked.uptime) == nil {
                self.settle(side)
            }
            self.position = .returned(.success(output))
        case .resolved(.assumed(let output, let assumption)):
            // There is nothing to wait for: whatever comes of it, it counts as done.
            self.settle(side)
            self.assumption = assumption
            self.position = .returned(.success(output))
        case .resolved(.repeatable):
            self.repeatUnderSameKey(step: call.step)
        case .resolved(.absent):
            if let settled = self.tooEarly(side, asked: asked.uptime) {
                self.postpone(side, until: settled, SagaWait(reason: .settleTime))
            } else {
                self.settle(side)
            }
        case .resolved(.undecidable(var error)):
            error.errorClass = .undecidable
            self.position = .returned(.failure(error))
        case .failed(let error) where error.errorClass == .undecidable:
            self.position = .returned(.failure(StepError(.undecidable, reason: error.reason, message: error.message)))
        case .failed, .abandoned, .notSent, .succeeded, .pending, .undone:
            self.askAgain(call, now: now)
        }
    }

    /// A job on the other side was asked about. Until it is over its call stays in doubt; so does one that has failed, since
    /// something of it may be left.
    mutating func polled(_ call: StepCall, _ outcome: CallOutcome, now: Moment) {
        let side = StepSide.execute(call.step)
        let step = self.snapshot.steps[call.step]
        switch outcome {
        case .succeeded(let output):
            self.settle(side)
            self.position = .returned(.success(output))
        case .pending(let job) where job.output == step.output && job.note == step.note:
            // Nothing new: nothing is written.
            self.questionsAsked = 0
            self.postpone(side, until: now.uptime + max(job.pollAfter, .milliseconds(50)), SagaWait(reason: .job))
        case .pending(let job):
            self.position = .progressed(job)
        case .failed(let error):
            switch error.errorClass {
            case .unavailable, .unknownOutcome, .leaseLost:
                self.askAgain(call, now: now)
            case .throttled(let after):
                self.askAgain(call, now: now, atLeast: after)
            case .invalid, .refused, .conflict, .notFound, .undecidable:
                self.position = .returned(.failure(error))
            }
        case .abandoned, .notSent, .resolved, .undone:
            self.askAgain(call, now: now)
        }
    }

    /// Create is unique by key: the same attempt may be made again at once; its number rises so that it is bounded.
    private mutating func repeatUnderSameKey(step index: Int) {
        if self.unanswered[.execute(index)]?.isInherited == true {
            // A crash is no failure of the other side: the same attempt goes on.
            self.position = .repeatable
            return
        }
        let attempt = self.executeCall(step: index).attempt
        let error = StepError(
            .unknownOutcome, reason: self.definition.steps[index].unavailableReason,
            message: "the outcome of attempt \(attempt) is unknown: \(self.unansweredReason)")
        self.position = .returned(.failure(error))
    }
}
