extension SagaMachine {
    /// What a saga that turned back does next.
    func nextUndo(now: Moment) -> Action {
        // Results first, so that nothing that is known is lost to a crash.
        if let index = self.undoErrors.keys.max(), let error = self.undoErrors[index] {
            return .write(self.undoFailedRecord(step: index, error: error, now: now.time))
        }
        if let index = self.undone.max() {
            return .write(self.undoneRecord(step: index, now: now.time))
        }
        if let command = self.commands.first { return .write(self.commandRecord(command, now: now.time)) }
        var shortest: Duration?
        for index in self.snapshot.steps.indices.reversed() where self.snapshot.steps[index].status == .compensating {
            guard self.definition.steps[index].undoIsRemote else {
                // Its flush held its end too; a definition that changed its mind about this finishes it here.
                return .write(self.undoneRecord(step: index, now: now.time))
            }
            let pause = (self.due[.undo(index)] ?? now.uptime) - now.uptime
            if pause <= .zero {
                if self.doubt(.undo(index)) == .none {
                    return .write(self.undoIntentRecord(step: index, now: now.time))
                }
                return .call(self.undoCall(step: index), limit: self.definition.steps[index].callLimit)
            }
            shortest = min(shortest ?? pause, pause)
        }
        // Something else may be undone while one waits for its next attempt; or the saga is over.
        let draft = self.draft(now: now.time)
        guard let shortest, draft.nextUndo(ignoringRetries: false) == nil else {
            return .write(self.record(kind: .undo, now: now.time) { $0.undo() })
        }
        return .wait(shortest)
    }

    /// The attempt that an undo's call makes: the one that its STEP_COMPENSATING or the STEP_RETRYING before it announced.
    func undoAttempt(step index: Int) -> Int {
        let step = self.snapshot.steps[index]
        return step.retryAt == nil ? max(step.compensationAttempts, 1) : step.compensationAttempts + 1
    }

    private func undoCall(step index: Int) -> StepCall {
        StepCall(
            kind: .compensate, step: index, attempt: self.undoAttempt(step: index),
            generation: max(self.snapshot.steps[index].generation, 1),
            isInDoubt: self.doubt(.execute(index)).isSent, isRepeat: self.doubt(.undo(index)).isSent)
    }

    mutating func compensated(_ call: StepCall, _ outcome: CallOutcome, asked: Moment, now: Moment) {
        if call.isProbe, outcome.sign(wasCutShort: false) == .failed {
            // Whom it calls is still down.
            self.survived()
            if !outcome.isDefinite { self.becomeDoubtful(.undo(call.step), now: now) }
            return
        }
        switch outcome {
        case .undone(.undone) where Mutant.firstFindingEndsDoubt.isActive,
            .undone(.pending) where Mutant.undoLeavesJobs.isActive:
            self.undone.insert(call.step)
        case .undone(.assumed(let assumption)):
            self.undone.insert(call.step)
            self.undoAssumptions[call.step] = assumption
        case .undone(.pending(let pollAfter)):
            self.postpone(
                .undo(call.step), until: now.uptime + max(pollAfter, .milliseconds(50)), SagaWait(reason: .job))
        case .undone:
            // Whatever it found: an unanswered call may bring something about until it is settled. So it is undone at once,
            // and looked for again.
            if let settled = self.tooEarly(.execute(call.step), asked: asked.uptime) {
                self.postpone(.undo(call.step), until: settled, SagaWait(reason: .settleTime))
            } else {
                self.undone.insert(call.step)
            }
        case .notSent:
            self.askAgain(call, now: now)
        case .failed(let error):
            if error.errorClass == .unknownOutcome { self.becomeDoubtful(.undo(call.step), now: now) }
            self.undoErrors[call.step] = error
        case .abandoned, .succeeded, .pending, .resolved:
            self.becomeDoubtful(.undo(call.step), now: now)
            self.undoErrors[call.step] = StepError(
                .unknownOutcome, reason: "TIMED_OUT", message: "the undo took longer than its limit")
        }
    }
}
