import Synchronization

/// Ends a stop that takes too long.
///
/// After `drain-timeout` a stop waits for little more: the last answers, the calls of sagas under way, the last records. A
/// database that says nothing can make each of these take as long as its time-outs allow, one after the other. What a server
/// leaves behind then, others take up as after a crash.
final class StopLimit: Sendable {
    /// Beyond `drain-timeout`.
    static let grace: Duration = .seconds(10)

    private let limit: Duration
    private let giveUp: @Sendable () async -> Void
    private let task = Mutex<Task<Void, Never>?>(nil)

    /// - Parameter giveUp: doesn't return to whoever still waits.
    init(_ limit: Duration, giveUp: @escaping @Sendable () async -> Void) {
        self.limit = limit
        self.giveUp = giveUp
    }

    /// From now on; once.
    func begin() {
        self.task.withLock { task in
            guard task == nil else { return }
            task = Task {
                guard (try? await Task.sleep(for: self.limit)) != nil else { return }
                await self.giveUp()
            }
        }
    }

    /// The stop is over.
    func cancel() { self.task.withLock { $0 }?.cancel() }
}
