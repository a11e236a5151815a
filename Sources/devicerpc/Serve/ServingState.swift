import RPCTransport
import SagaRuntime
import Synchronization

/// Whether this replica takes new work, told the same way to health checks, `/readyz` and metrics.
final class ServingState: Sendable {
    private let runtime: SagaRuntime
    private let gate: ShutdownGate
    private let health: HealthService
    private let problem = Mutex<String?>("not asked yet")

    init(runtime: SagaRuntime, gate: ShutdownGate, health: HealthService) {
        self.runtime = runtime
        self.gate = gate
        self.health = health
    }

    /// What the probe found; `nil`: the database answers.
    var databaseProblem: String? {
        get { self.problem.withLock { $0 } }
        set {
            self.problem.withLock { $0 = newValue }
            self.publish()
        }
    }

    var readiness: Readiness {
        let database = self.databaseProblem
        let engine = self.runtime.problems
        return Readiness(checks: [
            Readiness.Check("accepting", !self.gate.isClosed, self.gate.isClosed ? "draining" : ""),
            Readiness.Check("database", database == nil, database ?? ""),
            Readiness.Check("engine", engine.isEmpty, engine.joined(separator: "; ")),
            // New sagas are taken all the same.
            Readiness.Check("adoption", true, self.runtime.adoptionHold.map { "held: \($0)" } ?? ""),
        ])
    }

    /// Tells the health service; its watchers hear of changes only.
    func publish() {
        let isReady = self.readiness.isReady
        for name in ["", "cloudphone.device.v1.DeviceService"] {
            self.health.setStatus(name, isReady ? .serving : .notServing)
        }
    }
}
