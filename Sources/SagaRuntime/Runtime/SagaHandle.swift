import Synchronization

/// How far a caller waits.
public enum Milestone: Sendable {
    /// The saga is durable.
    case accepted
    /// Every step up to the definition's `provisionedStep` is done.
    case provisioned
    /// Completed, undone or parked.
    case finished
    /// An event later than this sequence is durable.
    case event(after: Int)
}

extension SagaSnapshot {
    /// Whether whoever waits for `milestone` can be answered.
    func hasReached(_ milestone: Milestone, provisionedStep: Int) -> Bool {
        if !self.status.isActive { return true }
        return switch milestone {
        case .accepted: true
        case .finished: false
        case .event(let sequence): self.lastSequence > sequence
        case .provisioned:
            self.status == .running
                && self.steps.prefix(provisionedStep + 1).allSatisfy {
                    $0.status == .succeeded || $0.status == .skipped
                }
        }
    }
}

/// A saga that this process drives: its newest state, and who waits for it.
final class SagaHandle: Sendable {
    private struct Waiter {
        var milestone: Milestone
        var token: Int
        var continuation: CheckedContinuation<SagaSnapshot?, Never>
    }

    private struct State {
        var snapshot: SagaSnapshot?
        var waiters: [Waiter] = []
        var nextToken = 0
        /// What its driver has not looked at yet.
        var commands: [SagaCommand] = []
        /// The newest that was ever handed over: they are told of again and again until they are consumed.
        var newestCommand: Int64 = 0
        /// Ends the call that is under way, where its step allows that.
        var stopCall: (@Sendable () -> Void)?
        var isOver = false
    }

    let type: String
    private let provisionedStep: Int
    /// Whose saga it is.
    let userID: String
    private let state = Mutex(State())

    init(type: String, provisionedStep: Int, userID: String) {
        self.type = type
        self.provisionedStep = provisionedStep
        self.userID = userID
    }

    /// The state after a flush.
    func update(_ snapshot: SagaSnapshot) {
        let ready = self.state.withLock { state in
            state.snapshot = snapshot
            let ready = state.waiters.filter {
                snapshot.hasReached($0.milestone, provisionedStep: self.provisionedStep)
            }
            if !ready.isEmpty {
                state.waiters.removeAll { waiter in ready.contains { $0.token == waiter.token } }
            }
            return ready
        }
        for waiter in ready { waiter.continuation.resume(returning: snapshot) }
    }

    /// Hands commands to the saga's driver. One that turns it back ends the call that is under way, where its step allows that.
    func deliver(_ commands: [SagaCommand]) {
        let stop = self.state.withLock { state -> (@Sendable () -> Void)? in
            let new = commands.filter { $0.id > state.newestCommand }
            state.newestCommand = max(state.newestCommand, new.map(\.id).max() ?? 0)
            state.commands += new
            return new.contains { $0.turnsBack } ? state.stopCall : nil
        }
        stop?()
    }

    /// A call begins, or ends (`nil`). A command that came before it counts too.
    func callIsUnderWay(stop: (@Sendable () -> Void)?) {
        let isLate = self.state.withLock { state in
            state.stopCall = stop
            return state.commands.contains { $0.turnsBack }
        }
        if isLate { stop?() }
    }

    /// Commands that came since this was asked last; some may have come twice.
    func takeCommands() -> [SagaCommand] {
        self.state.withLock { state in
            defer { state.commands = [] }
            return state.commands
        }
    }

    /// This process drives the saga no longer; whoever waits has to look elsewhere.
    func end() {
        let waiters = self.state.withLock { state in
            state.isOver = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.continuation.resume(returning: nil) }
    }

    /// Waits for the milestone; `nil` if this process stopped driving the saga before, or the task was cancelled.
    func wait(until milestone: Milestone) async -> SagaSnapshot? {
        let token = self.state.withLock { state in
            state.nextToken += 1
            return state.nextToken
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let answer: SagaSnapshot?? = self.state.withLock { state in
                    if let snapshot = state.snapshot,
                        snapshot.hasReached(milestone, provisionedStep: self.provisionedStep)
                    {
                        return .some(snapshot)
                    }
                    if state.isOver || Task.isCancelled { return .some(nil) }
                    state.waiters.append(Waiter(milestone: milestone, token: token, continuation: continuation))
                    return nil
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            let waiter = self.state.withLock { state -> Waiter? in
                guard let index = state.waiters.firstIndex(where: { $0.token == token }) else { return nil }
                return state.waiters.remove(at: index)
            }
            waiter?.continuation.resume(returning: nil)
        }
    }
}
