import Synchronization

/// Whether the server is on its way out, and since when.
final class ShutdownGate: Sendable {
    private let closedAt = Mutex<ContinuousClock.Instant?>(nil)

    func close() { self.closedAt.withLock { $0 = $0 ?? .now } }
    var isClosed: Bool { self.closedAt.withLock { $0 != nil } }

    /// What is left of a time that began when it was closed; all of it while it is open.
    func rest(of limit: Duration) -> Duration {
        self.closedAt.withLock { closedAt in closedAt.map { limit - $0.duration(to: .now) } ?? limit }
    }
}
