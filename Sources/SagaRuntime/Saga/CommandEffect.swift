/// What a command does to a saga as it is.
enum CommandEffect: Sendable, Equatable {
    case none(SagaCommand.Result)
    case turnBack
    case goOn
    /// The step counts as done, or as undone.
    case skip(Int)
}

extension SagaDefinition {
    /// The pivot's intent is durable: from then on the saga only goes forward.
    func isPastPivot(_ saga: SagaSnapshot) -> Bool {
        self.steps.indices.contains { self.steps[$0].kind == .pivot && saga.steps[$0].startedAt != nil }
    }

    /// - Parameter sequence: `SagaCommand.sequence`.
    func effect(of kind: SagaCommand.Kind, on saga: SagaSnapshot, givenAt sequence: Int? = nil) -> CommandEffect {
        switch kind {
        case .unknown: .none(.unknownKind)
        case .cancel, .compensate: self.effectOfTurningBack(saga)
        case .resume: self.effectOfResuming(saga, givenAt: sequence)
        case .skip: self.effectOfSkipping(saga, givenAt: sequence)
        }
    }

    private func effectOfTurningBack(_ saga: SagaSnapshot) -> CommandEffect {
        if saga.status == .completed { return .none(.tooLate) }
        if saga.isTurnedBack { return .none(.noEffect) }
        return self.isPastPivot(saga) ? .none(.pastPivot) : .turnBack
    }

    private func effectOfResuming(_ saga: SagaSnapshot, givenAt sequence: Int?) -> CommandEffect {
        if saga.status.isTerminal { return .none(.tooLate) }
        return saga.hasObeyed(since: sequence) ? .none(.noEffect) : .goOn
    }

    /// Only an undo that failed, and the pivot or a retriable step that parked, may be skipped.
    private func effectOfSkipping(_ saga: SagaSnapshot, givenAt sequence: Int?) -> CommandEffect {
        if saga.hasObeyed(since: sequence) {
            return .none(saga.obeyed?.kind == SagaCommand.Kind.skip.rawValue ? .noEffect : .notParked)
        }
        let index = saga.stepIndex
        guard saga.status == .parked, saga.steps.indices.contains(index) else { return .none(.notParked) }
        let mayBeSkipped =
            saga.isTurnedBack
            ? saga.steps[index].status == .compensationFailed
            : self.isPastPivot(saga) && saga.steps[index].status == .running
        return mayBeSkipped ? .skip(index) : .none(.notParked)
    }
}

extension SagaSnapshot {
    /// Whether a command had an effect after an event: what was meant for the saga as that event left it comes too late.
    fileprivate func hasObeyed(since sequence: Int?) -> Bool {
        guard let sequence, let obeyed = self.obeyed else { return false }
        return obeyed.sequence > sequence
    }
}

extension SagaDefinition {
    /// What an operator may command a saga to do, of what would have an effect on it as it is; the least drastic first.
    func helpfulCommands(_ saga: SagaSnapshot) -> [SagaCommand.Kind] {
        var kinds: [SagaCommand.Kind] = []
        // What merely waits goes on by itself.
        if saga.isQuarantined || saga.status == .parked { kinds.append(.resume) }
        if case .skip = self.effect(of: .skip, on: saga) { kinds.append(.skip) }
        if self.effect(of: .compensate, on: saga) == .turnBack { kinds.append(.compensate) }
        return kinds
    }
}
