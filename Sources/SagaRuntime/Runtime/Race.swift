import Synchronization

/// Runs an operation with a limit that holds even if the operation ignores its cancellation.
///
/// A task group would wait for it; a provider's client that hangs must not hold up a saga's deadline. The operation's task
/// is cancelled and left to itself, and whatever it returns later is dropped: the machine counts it as unknown.
enum Race {
    private final class Contest<Value: Sendable>: Sendable {
        private struct State {
            var continuation: CheckedContinuation<Value?, Never>?
            var tasks: [Task<Void, Never>] = []
            var limit: Deadlines.Entry?
            var isOver = false
        }

        private let deadlines: Deadlines
        private let state = Mutex(State())

        init(_ deadlines: Deadlines) { self.deadlines = deadlines }

        /// - Returns: false if it was over before it began; the continuation is resumed then.
        func begin(_ continuation: CheckedContinuation<Value?, Never>) -> Bool {
            let isOver = self.state.withLock { state in
                if !state.isOver { state.continuation = continuation }
                return state.isOver
            }
            if isOver { continuation.resume(returning: nil) }
            return !isOver
        }

        /// What ends with the contest; at once if that is over already.
        func add(task: Task<Void, Never>, limit: Deadlines.Entry? = nil) {
            let isOver = self.state.withLock { state in
                if !state.isOver {
                    state.tasks.append(task)
                    if let limit { state.limit = limit }
                }
                return state.isOver
            }
            guard isOver else { return }
            task.cancel()
            if let limit { self.deadlines.remove(limit) }
        }

        func end(_ value: Value?) {
            let ended = self.state.withLock { state in
                defer { state = State(isOver: true) }
                return state
            }
            if let limit = ended.limit { self.deadlines.remove(limit) }
            for task in ended.tasks { task.cancel() }
            ended.continuation?.resume(returning: value)
        }
    }

    /// - Parameters:
    ///   - stoppable: is given what ends the race before its time; may be called after that.
    ///   - meanwhile: a fault point of test builds, hit while the operation is under way.
    /// - Returns: what the operation returned, or `nil` if the limit (or cancellation) came first.
    static func run<Value: Sendable>(
        limit: Duration, _ deadlines: Deadlines,
        stoppable: (_ stop: @escaping @Sendable () -> Void) -> Void = { _ in },
        _ operation: @escaping @Sendable () async -> Value,
        meanwhile: @escaping @Sendable () -> Void
    ) async -> Value? {
        let contest = Contest<Value>(deadlines)
        stoppable { contest.end(nil) }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                guard contest.begin(continuation) else { return }
                #if FAULT_POINTS
                    contest.add(
                        task: Task {
                            if (try? await deadlines.surroundings.sleep(for: .milliseconds(20))) != nil { meanwhile() }
                        })
                #endif
                let entry = deadlines.add(after: limit) { contest.end(nil) }
                contest.add(task: Task { contest.end(await operation()) }, limit: entry)
            }
        } onCancel: {
            contest.end(nil)
        }
    }
}
