import DeviceProvisioning
import SagaRuntime
import Synchronization

/// What operators see of the sagas; the names that begin with saga_device_creation are theirs since before.
final class SagaMetrics: SagaRuntimeObserver {
    private let registry: MetricsRegistry
    private let completed: CounterSeries
    private let failed: CounterSeries
    private let timedOut: CounterSeries
    private let duration: HistogramSeries
    private let creationsInProgress: GaugeSeries
    private let inProgress: GaugeSeries
    private let parked: GaugeSeries
    private let quarantined: GaugeSeries
    private let asleepSagas: GaugeSeries
    private let unservedSagas: GaugeSeries
    private let leaseAge: GaugeSeries
    private let daysAhead: GaugeSeries
    private let flushDuration: HistogramSeries
    private let flushRecords: HistogramSeries
    /// Those that there were sagas of; a gauge that is told nothing keeps its last value.
    private let types = Mutex(Set(SagaMetrics.sagaTypes))

    init(registry: MetricsRegistry) {
        func ended(_ status: String) -> CounterSeries {
            registry.counter("saga_device_creation_total", [("status", status)])
        }
        self.registry = registry
        self.completed = ended("completed")
        self.failed = ended("failed")
        self.timedOut = ended("timeout")
        self.duration = registry.histogram("saga_device_creation_duration_seconds")
        self.creationsInProgress = registry.gauge("saga_device_creation_in_progress")
        self.inProgress = registry.gauge("saga_in_progress")
        self.parked = registry.gauge("saga_parked")
        self.quarantined = registry.gauge("saga_quarantined")
        self.asleepSagas = registry.gauge("saga_asleep")
        self.unservedSagas = registry.gauge("saga_unserved")
        self.leaseAge = registry.gauge("saga_lease_age_seconds")
        self.daysAhead = registry.gauge("saga_partitions_ahead")
        self.flushDuration = registry.histogram("saga_flush_duration_seconds")
        self.flushRecords = registry.histogram("saga_flush_records")
        // Rates need a zero to start from.
        for operation in ["increment", "decrement"] {
            _ = registry.counter("quota_assumed_total", [("operation", operation)])
        }
        for kind in SagaCommand.Kind.allCases {
            for result in SagaCommand.Result.allCases { _ = Self.commands(kind, result, in: registry) }
        }
        for type in Self.sagaTypes {
            for status in [SagaStatus.completed, .compensated] {
                _ = registry.counter("saga_ended_total", [("type", type), ("status", status.name)])
            }
        }
        for step in Self.steps {
            _ = registry.counter("saga_device_creation_retry_count", [("step", step)])
            _ = registry.counter("saga_device_creation_compensate_total", [("step", step)])
            _ = registry.counter("saga_device_creation_step_failed_total", [("step", step)])
        }
        for reason in Self.reasons + [Self.other] {
            _ = registry.counter("saga_device_creation_failed_total", [("reason", reason)])
        }
    }

    private static let sagaTypes = [DeviceCreation.type] + DeviceOperation.allCases.map(\.type)
    private static let steps = [
        "ALLOCATE_PORTS", "CREATE_PROVIDER_DEVICE", "CREATE_DATABASE_RECORD", "REPORT_QUOTA_USAGE", "START_DEVICE",
    ]
    /// Why creations are undone, by the contract.
    private static let reasons = [
        "QUOTA_REFUSED", "PORTS_EXHAUSTED", "CAPACITY_EXHAUSTED", "PROVIDER_REFUSED", "PROVIDER_UNAVAILABLE",
        "QUOTA_UNAVAILABLE", "BOOT_FAILED", "PORT_TAKEN", "TIMED_OUT", "CANCELLED",
    ]
    private static let other = "other"

    func sagaEnded(type: String, status: SagaStatus, failure: SagaFailure?, duration: Duration) {
        if status.isTerminal {
            self.registry.counter("saga_ended_total", [("type", type), ("status", status.name)]).increment(by: 1)
        }
        if status == .parked {
            self.registry.counter("saga_parked_total", [("type", type), ("reason", failure?.reason ?? "")])
                .increment(by: 1)
        }
        guard type == DeviceCreation.type, status.isTerminal else { return }
        switch (status, failure?.cause) {
        case (.completed, _): self.completed.increment(by: 1)
        case (_, .timedOut): self.timedOut.increment(by: 1)
        default: self.failed.increment(by: 1)
        }
        if status == .compensated {
            let reason = failure?.reason ?? ""
            let known = Self.reasons.contains(reason) ? reason : Self.other
            self.registry.counter("saga_device_creation_failed_total", [("reason", known)]).increment(by: 1)
        }
        self.duration.record(duration.inSeconds)
    }

    func stepRetried(type: String, step: String, isCompensation: Bool) {
        if isCompensation {
            self.registry.counter("saga_undo_retry_total", [("step", step)]).increment(by: 1)
            return
        }
        self.count("saga_step_retry_total", type, step, ofCreations: "saga_device_creation_retry_count")
    }

    func stepFailed(type: String, step: String) {
        self.count("saga_step_failed_total", type, step, ofCreations: "saga_device_creation_step_failed_total")
    }

    func stepCompensated(type: String, step: String) {
        self.count("saga_step_compensated_total", type, step, ofCreations: "saga_device_creation_compensate_total")
    }

    /// What happened to steps, of all types of sagas and once more of device creations.
    private func count(_ name: String, _ type: String, _ step: String, ofCreations: String) {
        self.registry.counter(name, [("type", type), ("step", step)]).increment(by: 1)
        if type == DeviceCreation.type { self.registry.counter(ofCreations, [("step", step)]).increment(by: 1) }
    }

    func sagaAdopted(type: String) {
        self.registry.counter("saga_adopted_total", [("type", type)]).increment(by: 1)
    }

    func commandConsumed(_ kind: SagaCommand.Kind, _ result: SagaCommand.Result) {
        Self.commands(kind, result, in: self.registry).increment(by: 1)
    }

    private static func commands(
        _ kind: SagaCommand.Kind, _ result: SagaCommand.Result, in registry: MetricsRegistry
    ) -> CounterSeries {
        registry.counter(
            "saga_commands_total", [("kind", kind.rawValue.lowercased()), ("result", result.rawValue.lowercased())])
    }

    func flushed(records: Int, duration: Duration) {
        self.flushRecords.record(Double(records))
        self.flushDuration.record(duration.inSeconds)
    }

    func breakerChanged(dependency: String, isOpen: Bool) {
        self.registry.gauge("saga_breaker_open", [("dependency", dependency)]).set(isOpen ? 1.0 : 0.0)
        if isOpen { self.registry.counter("saga_breaker_opened_total", [("dependency", dependency)]).increment(by: 1) }
    }

    func featureSwitched(_ feature: String, isOn: Bool) {
        self.registry.gauge("saga_feature_on", [("feature", feature)]).set(isOn ? 1.0 : 0.0)
    }

    /// A report of unknown outcome was taken for done.
    static func assumed(isIncrement: Bool, in registry: MetricsRegistry) {
        registry.counter("quota_assumed_total", [("operation", isIncrement ? "increment" : "decrement")]).increment(
            by: 1)
    }

    func waiting(asleep: Int, unserved: Int) {
        self.asleepSagas.set(Double(asleep))
        self.unservedSagas.set(Double(unserved))
    }

    func unfinished(_ sagas: [String: UnfinishedSagas]) {
        let types = self.types.withLock { types in
            types.formUnion(sagas.keys)
            return types
        }
        for type in types {
            let some = sagas[type]
            self.registry.gauge("saga_unfinished", [("type", type)]).set(Double(some?.count ?? 0))
            self.registry.gauge("saga_oldest_unfinished_seconds", [("type", type)]).set(some?.age.inSeconds ?? 0)
        }
        self.creationsInProgress.set(Double(sagas[DeviceCreation.type]?.count ?? 0))
    }

    func retention(_ state: Retention.State) {
        self.registry.gauge("saga_retention_held_days").set(Double(state.held))
        self.registry.gauge("saga_retention_failing").set(state.problem.isEmpty ? 0.0 : 1.0)
    }

    func sagaUnreadable() { self.registry.counter("saga_unreadable_total").increment(by: 1) }

    func measured(inProgress: [String: Int], parked: Int, quarantined: Int, leaseAge: Duration, daysAhead: Int) {
        self.inProgress.set(Double(inProgress.values.reduce(0, +)))
        self.parked.set(Double(parked))
        self.quarantined.set(Double(quarantined))
        self.leaseAge.set(leaseAge.inSeconds)
        self.daysAhead.set(Double(daysAhead))
    }
}
