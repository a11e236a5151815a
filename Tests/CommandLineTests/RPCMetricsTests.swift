import RPCTransport
import SagaRuntime
import Testing

@testable import devicerpc

@Suite struct RPCMetricsTests {
    @Test func callsAreCountedByMethodAndCode() {
        let registry = MetricsRegistry()
        let service = RPCService(name: "a.B", methods: [.unary("C") { message, _ in RPCReply(message: message) }])
        let metrics = RPCMetrics(services: [service], registry: registry)
        for code in [RPCCode.ok, .ok, .notFound] {
            metrics.callStarted(method: "/a.B/C")
            metrics.callEnded(method: "/a.B/C", code: code, duration: .milliseconds(2))
        }
        metrics.callStarted(method: "/a.B/C")
        metrics.callStarted(method: "/made/up")
        let text = registry.expose()
        #expect(text.contains("rpc_server_calls_total{code=\"OK\",method=\"a.B/C\"} 2\n"))
        #expect(text.contains("rpc_server_calls_total{code=\"NOT_FOUND\",method=\"a.B/C\"} 1\n"))
        #expect(text.contains("rpc_server_calls_in_progress{method=\"a.B/C\"} 1\n"))
        #expect(text.contains("rpc_server_call_duration_seconds_bucket{method=\"a.B/C\",le=\"0.0025\"} 3\n"))
        #expect(!text.contains("made"))
    }

    @Test func sagasAreCountedByStatus() {
        let registry = MetricsRegistry()
        let metrics = SagaMetrics(registry: registry)
        func end(_ status: SagaStatus, _ cause: FailureCause?) {
            let failure = cause.map { SagaFailure(cause: $0, step: "S", reason: "R", message: "") }
            metrics.sagaEnded(type: "DEVICE_CREATION", status: status, failure: failure, duration: .seconds(1))
        }
        end(.completed, nil)
        end(.compensated, .stepFailed)
        end(.compensated, .cancelled)
        end(.compensated, .timedOut)
        end(.parked, .stepFailed)
        metrics.stepRetried(type: "DEVICE_CREATION", step: "START_DEVICE", isCompensation: false)
        metrics.stepFailed(type: "DEVICE_CREATION", step: "START_DEVICE")
        metrics.stepCompensated(type: "DEVICE_CREATION", step: "ALLOCATE_PORTS")
        // Other sagas' steps of the same name are not a creation's.
        metrics.stepRetried(type: "OTHER", step: "START_DEVICE", isCompensation: false)
        metrics.stepFailed(type: "OTHER", step: "START_DEVICE")
        metrics.stepCompensated(type: "OTHER", step: "ALLOCATE_PORTS")
        let creations = UnfinishedSagas(count: 3, age: .seconds(100))
        metrics.unfinished(["DEVICE_CREATION": creations, "OTHER": .init(count: 2, age: .seconds(7))])
        #expect(registry.expose().contains("saga_oldest_unfinished_seconds{type=\"OTHER\"} 7\n"))
        metrics.unfinished(["DEVICE_CREATION": creations])
        // Sagas of other types are no creations.
        metrics.sagaEnded(type: "DEVICE_DELETION", status: .completed, failure: nil, duration: .seconds(1))
        metrics.measured(
            inProgress: ["DEVICE_CREATION": 3, "DEVICE_DELETION": 2], parked: 1, quarantined: 2,
            leaseAge: .milliseconds(1500), daysAhead: 7)
        let text = registry.expose()
        for line in [
            "saga_device_creation_total{status=\"completed\"} 1", "saga_device_creation_total{status=\"failed\"} 2",
            "saga_device_creation_total{status=\"timeout\"} 1", "saga_device_creation_duration_seconds_count 4",
            "saga_device_creation_retry_count{step=\"START_DEVICE\"} 1",
            "saga_device_creation_compensate_total{step=\"ALLOCATE_PORTS\"} 1",
            "saga_device_creation_in_progress 3", "saga_in_progress 5", "saga_parked 1", "saga_quarantined 2",
            "saga_ended_total{status=\"COMPLETED\",type=\"DEVICE_DELETION\"} 1",
            "saga_parked_total{reason=\"R\",type=\"DEVICE_CREATION\"} 1",
            "saga_device_creation_failed_total{reason=\"other\"} 3",
            "saga_device_creation_failed_total{reason=\"TIMED_OUT\"} 0",
            "saga_device_creation_step_failed_total{step=\"START_DEVICE\"} 1",
            "saga_step_failed_total{step=\"START_DEVICE\",type=\"OTHER\"} 1",
            "saga_unfinished{type=\"OTHER\"} 0", "saga_oldest_unfinished_seconds{type=\"OTHER\"} 0",
            "saga_lease_age_seconds 1.5",
        ] {
            #expect(text.contains(line + "\n"), "\(line)")
        }
    }

    @Test func readinessNamesReasons() {
        let readiness = Readiness(checks: [.init("a", true), .init("b", false, "x\"y")])
        #expect(!readiness.isReady)
        #expect(
            readiness.json()
                == "{\"ready\":false,\"checks\":{\"a\":{\"ok\":true},\"b\":{\"ok\":false,\"detail\":\"x\\\"y\"}}}\n")
    }
}
