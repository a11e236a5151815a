/// What may exist because of calls of one step in one direction, under the step's current generation.
enum Doubt: Sendable, Equatable {
    /// No call is unanswered, and none may start before a new intent is durable.
    case none
    /// The intent is durable, and certainly nothing was sent.
    case unsent
    /// Calls went out without an answer, the last of them possibly at `until`: an effect may exist, or may still appear.
    case sent(until: BootTime)
    /// Nothing of what was sent can appear any more; what there was is found, or known to be absent.
    case settled

    var isSent: Bool {
        if case .sent = self { true } else { false }
    }
}

/// Which of a step's two sides a call belongs to.
struct StepSide: Hashable, Sendable {
    var step: Int
    var isUndo: Bool

    static func execute(_ step: Int) -> StepSide { StepSide(step: step, isUndo: false) }
    static func undo(_ step: Int) -> StepSide { StepSide(step: step, isUndo: true) }
}

/// Calls of one side of a step that went out and were not answered.
struct UnansweredCalls: Sendable, Equatable {
    /// The last instant at which one of them may have been sent.
    var until: BootTime
    /// There may be more than one, so that what one of them made says nothing about the others.
    var maybeSeveral: Bool
    /// They are those of a process that is gone.
    var isInherited = false
    /// A question that was sent after the settle time has been answered.
    var isSettled = false
}

extension SagaMachine {
    /// The one value that says what may exist because of a side's calls.
    func doubt(_ side: StepSide) -> Doubt {
        if let calls = self.unanswered[side] { return calls.isSettled ? .settled : .sent(until: calls.until) }
        return self.recordedDoubt(side) == .none ? .none : .unsent
    }

    private func recordedDoubt(_ side: StepSide) -> StepSnapshot.RecordedDoubt {
        let step = self.snapshot.steps[side.step]
        return side.isUndo ? step.undoDoubt : step.doubt
    }

    /// Whether every intent of this saga of which the records don't say more is certainly unsent. A server that gives the saga
    /// back says so, and whoever takes it up goes on as if nothing had happened. What the records call unanswered stays that.
    var isUnsent: Bool {
        self.snapshot.steps.indices.allSatisfy { self.isUnsent(.execute($0)) && self.isUnsent(.undo($0)) }
    }

    private func isUnsent(_ side: StepSide) -> Bool {
        self.recordedDoubt(side) != .intent || !self.doubt(side).isSent
    }

    /// When "not found" may be believed of a side whose last call went out, at the latest, at `until`.
    func settledAt(_ side: StepSide, until: BootTime) -> BootTime { until + self.settleTime(step: side.step) }

    /// A question counts only if it was *sent* after the settle time; its answer's time says nothing.
    ///
    /// - Returns: `nil` if it counts; else from when on one does.
    func tooEarly(_ side: StepSide, asked: BootTime) -> BootTime? {
        guard case .sent(let until) = self.doubt(side) else { return nil }
        let settled = self.settledAt(side, until: until)
        return asked >= settled ? nil : settled
    }

    /// A call of this side went out, and was not answered by `now`.
    mutating func becomeDoubtful(_ side: StepSide, now: Moment) {
        let before = self.unanswered[side]
        self.unanswered[side] = UnansweredCalls(
            until: now.uptime, maybeSeveral: before != nil && before?.isSettled == false)
    }

    /// Nothing of this side can appear any more.
    mutating func settle(_ side: StepSide) { self.unanswered[side]?.isSettled = true }

    /// What a record says of a step's doubt is what this process goes by, too.
    mutating func follow(_ event: JournalEvent, generationBefore: Int, now: Moment) {
        guard let step = event.step else { return }
        let isUnknown = event.flags.contains(.outcomeUnknown)
        switch event.type {
        case .stepRetrying where self.snapshot.status == .compensating:
            break
        case .stepRetrying where event.generation > generationBefore:
            self.unanswered[.execute(step)] = nil
        case .stepSucceeded where !isUnknown, .stepFailed where !isUnknown:
            self.unanswered[.execute(step)] = nil
        case .stepFailed, .stepRetrying, .stepSucceeded:
            if isUnknown, self.unanswered[.execute(step)] == nil {
                self.unanswered[.execute(step)] = UnansweredCalls(until: now.uptime, maybeSeveral: true)
            }
        case .stepProgress:
            self.unanswered[.execute(step)] = UnansweredCalls(until: now.uptime, maybeSeveral: true)
        case .stepCompensated, .stepSkipped:
            self.unanswered[.execute(step)] = nil
            self.unanswered[.undo(step)] = nil
        default:
            break
        }
    }

    /// What a process that takes the saga up must assume of calls that others made: the settle time starts anew.
    ///
    /// - Parameters:
    ///   - isUnsent: the one before gave the saga back, and said that its intents are unsent.
    ///   - until: the last instant at which a call may have gone out, where that is still known.
    mutating func inheritDoubt(isUnsent: Bool, now: Moment, until: BootTime? = nil) {
        let isUnsent = isUnsent && !Mutant.unsentIntentsAreDoubtful.isActive
        let calls = UnansweredCalls(until: until ?? now.uptime, maybeSeveral: true, isInherited: true)
        for index in self.snapshot.steps.indices {
            let step = self.snapshot.steps[index]
            if step.doubt == .sent || (step.doubt == .intent && !isUnsent) { self.unanswered[.execute(index)] = calls }
            if step.undoDoubt == .sent || (step.undoDoubt == .intent && !isUnsent) {
                self.unanswered[.undo(index)] = calls
            }
        }
    }
}
