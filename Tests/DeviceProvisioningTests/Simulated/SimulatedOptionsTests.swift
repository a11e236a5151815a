import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite struct SimulatedOptionsTests {
    @Test func readsOptions() {
        var problems: [SimulatedBehaviour.Problem] = []
        let behaviour = SimulatedBehaviour(latency: .milliseconds(300)).applying(
            [
                "latency_ms": "5", "boot_ms": "700", "fail": "create:unavailable,destroy:throttled", "fail_times": "2",
                "lose_reply": "create,start", "lose_times": "3", "late_ms": "40", "lookup_lag_ms": "50",
                "unique_keys": "false",
            ], problems: &problems)
        #expect(problems.isEmpty)
        #expect(behaviour.latency == .milliseconds(5) && behaviour.boot == .milliseconds(700))
        #expect(behaviour.failure(.create, attempt: 2) == .unavailable && behaviour.failure(.create, attempt: 3) == nil)
        #expect(behaviour.failure(.destroy, attempt: 1) == .throttled && behaviour.failure(.find, attempt: 1) == nil)
        #expect(behaviour.losesReply(.start, attempt: 3) && !behaviour.losesReply(.start, attempt: 4))
        #expect(!behaviour.isUniqueByKey && behaviour.late == .milliseconds(40))
    }

    @Test(arguments: [
        ("latency_ms", "-1"), ("latency_ms", "x"), ("boot_ms", "3600001"), ("fail", "create"), ("fail", "create:no"),
        ("fail", "no:refused"), ("fail", "start:conflict"), ("fail", ""), ("fail_times", "-1"), ("lose_reply", "find"),
        ("lose_reply", "yes"), ("unique_keys", "1"), ("secret_option", "hunter2"),
    ])
    func refusesOptionsWithoutRepeatingThem(_ name: String, _ value: String) {
        var problems: [SimulatedBehaviour.Problem] = []
        let behaviour = SimulatedBehaviour().applying([name: value], problems: &problems)
        #expect(problems.count == 1 && problems.first?.option == name)
        #expect(problems.first?.description.contains("hunter2") == false)
        #expect(behaviour == SimulatedBehaviour())
    }

    @Test func readsConfiguration() throws {
        var configuration = SimulatedConfiguration()
        try configuration.apply(options: "fail=create:unavailable;fail_times=2", key: "DEVICERPC_SIMULATED_OPTIONS")
        #expect(configuration.behaviour.failure(.create, attempt: 1) == .unavailable)
        let error = #expect(throws: ProviderConfigurationError.self) {
            try configuration.apply(options: "late_ms=x", key: "DEVICERPC_SIMULATED_OPTIONS")
        }
        #expect(error?.key == "DEVICERPC_SIMULATED_OPTIONS")
    }

    @Test func keysAreTheProvidersIDs() throws {
        let id = try #require(SagaID("saga_1730188800000_7k2m9x4q1c"))
        let key = SimulatedDeviceKey(sagaID: id.rawValue, generation: 2, repeated: 7)
        #expect(key.externalID == "sim-1730188800000-7k2m9x4q1c-2-7")
        #expect(SimulatedDeviceKey(externalID: key.externalID) == key)
        for text in ["", "sim", "sim-1-2-3", "sim-1-2-x-0", "mis-1-2-3-4"] {
            #expect(SimulatedDeviceKey(externalID: text) == nil)
        }
    }
}
