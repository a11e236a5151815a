/// A record in the making: events are emitted into it and folded into a working copy of the state at once, so that each
/// decision sees what the ones before it led to.
struct SagaDraft {
    let definition: SagaDefinition
    let now: Timestamp
    private(set) var snapshot: SagaSnapshot
    private(set) var events: [JournalEvent] = []
    private(set) var sideEffects: [SideEffect] = []
    private var answers: [SagaCommand.Answer] = []
    /// Commands that are known and not consumed: a saga that ends or parks answers them first.
    private var commands: [SagaCommand]

    init(definition: SagaDefinition, snapshot: SagaSnapshot, unanswered commands: [SagaCommand] = [], now: Timestamp) {
        self.definition = definition
        self.snapshot = snapshot
        self.commands = commands
        self.now = now
    }

    var outcome: SagaRecord.Outcome {
        SagaRecord.Outcome(
            events: self.events, snapshot: self.snapshot, sideEffects: self.sideEffects, answers: self.answers)
    }

    mutating func emit(_ event: JournalEvent) {
        switch event.type {
        case .sagaCompleted, .sagaCompensated, .sagaParked:
            while let command = self.commands.first { self.consume(command, self.lastAnswer(to: command)) }
        default:
            break
        }
        do {
            _ = try self.snapshot.apply(event)
            self.events.append(event)
        } catch {
            // Steps come from the definition that made the snapshot, so this is a bug of ours; the event is not written.
            assertionFailure("\(error)")
        }
    }

    mutating func emit(
        _ type: SagaEventType, step: Int? = nil, attempt: Int = 0, generation: Int = 0,
        flags: JournalEvent.Flags = [], error: StepError? = nil, cause: FailureCause? = nil, retryAt: Timestamp? = nil,
        output: String? = nil
    ) {
        self.emit(
            JournalEvent(
                type: type, time: self.now, step: step, attempt: attempt, generation: generation, flags: flags,
                cause: cause, reason: error?.reason ?? "", message: error?.message ?? "", retryAt: retryAt,
                output: output))
    }

    // MARK: Commands

    /// What a saga that ends or parks says to a command: what would have had an effect has come too late.
    private func lastAnswer(to command: SagaCommand) -> SagaCommand.Result {
        let effect = self.definition.effect(of: command.kind, on: self.snapshot, givenAt: command.sequence)
        return if case .none(let result) = effect { result } else { .tooLate }
    }

    /// Answers the oldest command that is known.
    mutating func consume(_ command: SagaCommand, _ result: SagaCommand.Result) {
        self.commands.removeAll { $0.id == command.id }
        var event = JournalEvent(
            type: .commandReceived, time: self.now, step: nil, flags: result == .done ? [] : .noEffect)
        event.reason = command.kind.rawValue
        event.message = Text.sanitised(
            "by \(command.issuer): \(command.reason)\(result == .done ? "" : " (\(result.rawValue))")")
        self.emit(event)
        self.sideEffects.append(command.consumption(result))
        self.answers.append(SagaCommand.Answer(kind: command.kind, result: result))
    }

    // MARK: Forward

    /// The result of going forward as far as one flush can.
    enum Advance {
        /// The intent of remote step `step` is in the draft, or the saga is over.
        case settled
        /// A database step comes next; the draft holds everything before it.
        case databaseStep(Int, DatabaseStep)
    }

    /// Emits the intents from step `index` on, up to the first step that needs something outside this draft.
    mutating func advance(from index: Int) -> Advance {
        var index = index
        while index < self.definition.steps.count {
            let step = self.definition.steps[index]
            let attempt = self.snapshot.steps[index].attempts + 1
            let generation = max(self.snapshot.steps[index].generation, 1)
            switch step.action {
            case .database(let databaseStep):
                self.emit(.stepStarted, step: index, attempt: attempt, generation: generation)
                return .databaseStep(index, databaseStep)
            case .remote(let remote):
                guard remote.isNeeded(request: self.snapshot.request, outputs: self.snapshot.outputs) else {
                    self.emit(.stepSkipped, step: index)
                    index += 1
                    continue
                }
                self.emit(.stepStarted, step: index, attempt: attempt, generation: generation)
                if let claim = step.claim { return .databaseStep(index, claim) }
                return .settled
            }
        }
        self.emit(.sagaCompleted)
        return .settled
    }

    /// Records the success of step `index`, with what is to be written beside it.
    ///
    /// - Parameters:
    ///   - flags: `outcomeUnknown` if an earlier call of the step may still take effect.
    ///   - assumption: why it is merely taken for a success.
    mutating func succeed(
        step index: Int, attempt: Int, output: String?, flags: JournalEvent.Flags = [], assumption: StepError? = nil
    ) {
        self.emit(
            .stepSucceeded, step: index, attempt: attempt, flags: flags, error: assumption, output: output)
        self.sideEffects += self.definition.steps[index].onSucceeded
    }

    // MARK: Undo

    /// Turns the saga back: SAGA_COMPENSATING, and as much of the undo as needs nothing outside the database.
    mutating func turnBack(cause: FailureCause, step: Int, error: StepError) {
        self.emit(.sagaCompensating, step: step, error: error, cause: cause)
        self.undo()
    }

    /// The same of a saga that was under way: its current step failed, and may have left something.
    mutating func turnBack(cause: FailureCause, running index: Int, outcomeUnknown: Bool, error: StepError) {
        let step = self.snapshot.steps[index]
        if step.status == .running {
            self.emit(
                .stepFailed, step: index, attempt: step.attempts, flags: outcomeUnknown ? .outcomeUnknown : [],
                error: error)
        }
        self.turnBack(cause: cause, step: index, error: error)
    }

    /// Undoes what is pure database, emits the intent of the next remote undo, or ends the saga.
    mutating func undo() {
        while let index = self.nextUndo(ignoringRetries: false) {
            let step = self.definition.steps[index]
            let attempt = self.snapshot.steps[index].compensationAttempts + 1
            self.emit(
                .stepCompensating, step: index, attempt: attempt, generation: self.snapshot.steps[index].generation)
            self.sideEffects += step.onCompensating
            if step.undoIsRemote { return }
            self.compensated(step: index)
        }
        guard self.nextUndo(ignoringRetries: true) == nil else { return }
        if let parked = self.snapshot.steps.firstIndex(where: { $0.status == .compensationFailed }) {
            let left = self.snapshot.steps.filter { $0.needsUndo }.map(\.name).joined(separator: ", ")
            let error = StepError(
                .undecidable, reason: "PARKED", message: "not undone: \(left). \(self.snapshot.steps[parked].error)")
            self.emit(.sagaParked, step: parked, error: error)
        } else {
            self.emit(.sagaCompensated)
        }
    }

    /// Records that step `index` is undone, with what is to be written beside it.
    ///
    /// - Parameter assumption: why it is merely taken for that.
    mutating func compensated(step index: Int, assumption: StepError? = nil) {
        self.emit(
            .stepCompensated, step: index, attempt: self.snapshot.steps[index].compensationAttempts,
            generation: self.snapshot.steps[index].generation, error: assumption)
        self.sideEffects += self.definition.steps[index].onCompensated
    }

    /// Step `index` counts as done, or as undone: somebody has seen to it by hand.
    mutating func skip(step index: Int) {
        self.emit(.stepSkipped, step: index)
        self.sideEffects +=
            self.snapshot.isTurnedBack
            ? self.definition.steps[index].onCompensated : self.definition.steps[index].onSucceeded
    }

    /// The newest step whose undo may start: nothing that it waits for is left.
    ///
    /// - Parameter ignoringRetries: also those that wait for their next attempt.
    func nextUndo(ignoringRetries: Bool) -> Int? {
        self.snapshot.steps.indices.reversed().first { index in
            let step = self.snapshot.steps[index]
            guard step.needsUndo, step.status != .compensationFailed else { return false }
            if !ignoringRetries, step.status == .compensating { return false }
            return self.definition.steps[index].undoAfter.allSatisfy { name in
                self.snapshot.steps.first { $0.name == name }.map { !$0.needsUndo } ?? true
            }
        }
    }
}
