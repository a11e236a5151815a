// What operators, and sagas that wait for this one, wish of it.

extension SagaMachine {
    /// Takes note of commands; those that are known already are not taken twice.
    mutating func receive(_ commands: [SagaCommand]) {
        for command in commands.sorted(by: { $0.id < $1.id }) where command.id > self.newestCommand {
            self.newestCommand = command.id
            self.commands.append(command)
        }
    }

    private func effect(of command: SagaCommand) -> CommandEffect {
        self.definition.effect(of: command.kind, on: self.snapshot, givenAt: command.sequence)
    }

    /// Whether a known command turns the saga back.
    var isToldToTurnBack: Bool { self.commands.contains { self.effect(of: $0) == .turnBack } }

    /// Consumes the oldest command, in one flush with what follows from it.
    func commandRecord(_ command: SagaCommand, now: Timestamp) -> SagaRecord {
        var draft = self.draft(now: now)
        let index = self.snapshot.stepIndex
        switch self.effect(of: command) {
        case .none(let result):
            draft.consume(command, result)
        case .turnBack:
            draft.consume(command, .done)
            if self.snapshot.status == .parked { draft.emit(.sagaResumed) }
            let error = StepError(.refused, reason: "CANCELLED", message: "by \(command.issuer): \(command.reason)")
            draft.turnBack(
                cause: .cancelled, running: index, outcomeUnknown: self.doubt(.execute(index)).isSent, error: error)
        case .goOn:
            draft.consume(command, .done)
            if self.snapshot.status == .parked { draft.emit(.sagaResumed) }
        case .skip(let step):
            draft.consume(command, .done)
            draft.emit(.sagaResumed)
            draft.skip(step: step)
            if self.snapshot.isTurnedBack {
                draft.undo()
            } else {
                return self.forwardRecord(draft, from: step + 1, kind: .command)
            }
        }
        return self.record(draft, kind: .command)
    }
}
