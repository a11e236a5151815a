import Synchronization

/// Runs an operation with a limit that holds even if the operation ignores its cancellation.
///
/// A task group would wait for it; a provider's client that hangs must not hold up a saga's deadline. The operation's task
/// is cancelled and left to itself, and whatever it returns later is dropped: the machine counts it as unknown.
enum Race {
    private final class Finish<Value: Sendable>: Sendable {
        private let state: Mutex<(continuation: CheckedContinuation<Value?, Never>?, tasks: [Task<Void, Never>])>

        init(_ continuation: CheckedContinuation<Value?, Never>) { self.state = Mutex((continuation, [])) }

        /// Cancels `task` when the race is over; at once if it is over already.
        func add(_ task: Task<Void, Never>) {
            let isOver = self.state.withLock { state in
                if state.continuation != nil { state.tasks.append(task) }
                return state.continuation == nil
            }
            if isOver { task.cancel() }
        }

        func end(_ value: Value?) {
            let (continuation, tasks) = self.state.withLock { state in
                defer { state = (nil, []) }
                return (state.continuation, state.tasks)
            }
            guard let continuation else { return }
            for task in tasks { task.cancel() }
            continuation.resume(returning: value)
        }
    }

    private final class Cancellation: Sendable {
        private let state = Mutex<(isCancelled: Bool, action: (@Sendable () -> Void)?)>((false, nil))

        func set(_ action: @escaping @Sendable () -> Void) {
            let isCancelled = self.state.withLock { state in
                state.action = action
                return state.isCancelled
            }
            if isCancelled { action() }
        }

        func cancel() {
            let action = self.state.withLock { state in
                state.isCancelled = true
                return state.action
            }
            action?()
        }
    }

    /// - Parameter meanwhile: a fault point of test builds, hit while the operation is under way.
    /// - Returns: what the operation returned, or `nil` if the limit (or cancellation) came first.
    static func run<Value: Sendable>(
        limit: Duration, _ operation: @escaping @Sendable () async -> Value,
        meanwhile: @escaping @Sendable () -> Void
    ) async -> Value? {
        let cancellation = Cancellation()
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let finish = Finish<Value>(continuation)
                cancellation.set { finish.end(nil) }
                finish.add(
                    Task {
                        if (try? await Task.sleep(for: limit)) != nil { finish.end(nil) }
                    })
                #if FAULT_POINTS
                    finish.add(
                        Task {
                            if (try? await Task.sleep(for: .milliseconds(20))) != nil { meanwhile() }
                        })
                #endif
                finish.add(Task { finish.end(await operation()) })
            }
        } onCancel: {
            cancellation.cancel()
        }
    }
}
