import Synchronization

/// Whether the server is on its way out, for readiness.
final class ShutdownGate: Sendable {
    private let draining = Atomic<Bool>(false)

    func close() { self.draining.store(true, ordering: .releasing) }
    var isClosed: Bool { self.draining.load(ordering: .acquiring) }
}
