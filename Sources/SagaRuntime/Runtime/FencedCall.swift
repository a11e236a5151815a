/// A call that this process had under way when it was fenced, and what is to become of what it made. Pure.
///
/// Its request may have left long after the lease was over (a process that was stopped between its look at the lease and
/// the send, say), so that nobody else waits for its effect any more.
struct FencedCall: Sendable {
    enum Verdict: Sendable, Equatable {
        /// Whoever owns the saga now may still adopt or undo it; or it may not be visible yet.
        case wait
        /// The saga is parked with this step in doubt: an operator looks into what is left, by its label.
        case leave
        /// The saga has decided without it: everything that it doesn't record goes.
        case remove
    }

    let call: SagaMachine.StepCall
    /// What the call made; `nil`: it ended without an answer.
    let output: String?
    /// From when on whatever came of it can be seen.
    let settledAt: BootTime

    /// - Parameter saga: as others have left it.
    func verdict(_ saga: SagaSnapshot, now: BootTime) -> Verdict {
        guard saga.steps.indices.contains(self.call.step) else { return .leave }
        let step = saga.steps[self.call.step]
        let isDecided: Bool
        switch saga.status {
        case .completed, .compensated:
            isDecided = true
        case .parked:
            if step.needsUndo, step.status != .succeeded { return .leave }
            isDecided = true
        case .running:
            isDecided = step.status == .succeeded
        case .compensating:
            // What is recorded will be undone by its owner, what is in doubt as well, and what is undone has nothing left.
            isDecided = step.status == .succeeded || !step.needsUndo
        }
        return isDecided && now >= self.settledAt ? .remove : .wait
    }

    /// What the saga holds: outputs, but for that of this step where its effect was undone. A late call under the same key may
    /// have made the very thing anew.
    func held(by saga: SagaSnapshot) -> [String: String] {
        var outputs = saga.outputs
        let step = saga.steps[self.call.step]
        if step.status != .succeeded { outputs[step.name] = nil }
        return outputs
    }
}
