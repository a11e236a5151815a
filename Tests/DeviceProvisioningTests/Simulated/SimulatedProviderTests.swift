import SagaRuntime
import Synchronization
import TestSupport
import Testing

@testable import DeviceProvisioning

@Suite(.serialized) struct SimulatedProviderTests {
    private static func context(
        _ view: SagaView, _ step: String = DeviceStep.createProviderDevice, options: [String: String] = [:],
        attempt: Int = 1, generation: Int = 1, isInDoubt: Bool = false, outputs: [String: String] = [:]
    ) -> StepContext {
        StepContext(
            sagaID: view.sagaID, step: step, attempt: attempt, generation: generation, request: view.request,
            outputs: outputs.merging(
                [DeviceStep.allocatePorts: #"{"host":"sim-00001","adb":5555,"webrtc":8080}"#]) { $1 },
            secrets: ProviderOptions.encoded(options), isInDoubt: isInDoubt,
            deadline: Timestamp(milliseconds: 2_000_000_000_000), authorize: { () throws(StepError) in })
    }

    private static func registry(
        _ fixture: FlushFixture, _ behaviour: SimulatedBehaviour = SimulatedBehaviour()
    ) -> ProviderRegistry {
        let provider = SimulatedProvider(
            configuration: SimulatedConfiguration(behaviour: behaviour), database: fixture.pool)
        return ProviderRegistry([provider], default: .simulated)
    }

    private static func thrown<Value>(_ body: () async throws(StepError) -> Value) async -> StepError? {
        do throws(StepError) {
            _ = try await body()
            return nil
        } catch {
            return error
        }
    }

    private static let living = "SELECT count(*) FROM simulated_device WHERE destroyed_at IS NULL"

    @Test func createsStartsFindsAndDestroys() async throws {
        let fixture = try await FlushFixture()
        let registry = Self.registry(fixture)
        let create = CreateProviderDeviceStep(providers: registry)
        let start = StartDeviceStep(providers: registry)
        let view = FlushFixture.view(.simulated)
        let output = try await create.execute(Self.context(view)).output
        let outputs = [DeviceStep.createProviderDevice: output]
        let connection = try await start.execute(Self.context(view, DeviceStep.startDevice, outputs: outputs)).output
        #expect(connection == #"{"host":"sim-00001","adb":5555,"webrtc":8080}"#)
        // Both may be repeated, by any process.
        let (again, device) = (
            Self.context(view, attempt: 2), Self.context(view, DeviceStep.startDevice, outputs: outputs)
        )
        #expect(try await create.execute(again).output == output)
        #expect(try await start.execute(device).output == connection)
        #expect(try await fixture.count(Self.living) == 1)
        #expect(try await fixture.count("SELECT create_calls::bigint FROM simulated_device") == 2)
        guard case .happened(output) = try await create.resolve(Self.context(view, isInDoubt: true)) else {
            Issue.record("not found")
            return
        }
        guard case .undone = try await create.compensate(Self.context(view, outputs: outputs)),
            case .nothingFound = try await create.compensate(Self.context(view, outputs: outputs)),
            case .nothingFound = try await create.compensate(Self.context(view, isInDoubt: true))
        else {
            Issue.record("not undone, or twice")
            return
        }
        #expect(try await fixture.count(Self.living) == 0)
        let gone = await Self.thrown { () throws(StepError) in
            try await start.execute(Self.context(view, DeviceStep.startDevice, outputs: outputs))
        }
        #expect(gone?.errorClass == .notFound)
        #expect(try await registry.sites(of: .simulated).first?.provider.listOwned().isEmpty == true)
        await fixture.close()
    }

    @Test func failsAsItIsTold() async throws {
        let fixture = try await FlushFixture()
        let create = CreateProviderDeviceStep(providers: Self.registry(fixture))
        let view = FlushFixture.view(.simulated)
        for (told, expected, reason) in [
            ("invalid", StepError.Class.invalid, "PROVIDER_REFUSED"), ("refused", .refused, "PROVIDER_REFUSED"),
            ("unavailable", .unavailable, "PROVIDER_UNAVAILABLE"), ("unknown", .unknownOutcome, "PROVIDER_UNAVAILABLE"),
            ("throttled", .throttled(after: nil), "PROVIDER_UNAVAILABLE"),
            ("conflict", .conflict(redoing: "ALLOCATE_PORTS"), "PORT_TAKEN"),
        ] {
            let options = ["fail": "create:\(told)", "fail_times": "1"]
            let error = await Self.thrown { () throws(StepError) in
                try await create.execute(Self.context(view, options: options))
            }
            #expect(error?.errorClass == expected && error?.reason == reason)
        }
        #expect(try await fixture.count(Self.living) == 0)
        _ = try await create.execute(
            Self.context(view, options: ["fail": "create:refused", "fail_times": "1"], attempt: 2))
        #expect(try await fixture.count(Self.living) == 1)
        let start = StartDeviceStep(providers: Self.registry(fixture))
        let error = await Self.thrown { () throws(StepError) in
            try await start.execute(
                Self.context(
                    view, DeviceStep.startDevice, options: ["fail": "start:refused"],
                    outputs: [DeviceStep.createProviderDevice: #"{"id":"x","generation":1}"#]))
        }
        #expect(error?.reason == "BOOT_FAILED")
        await fixture.close()
    }

    @Test func aLostReplyIsAdopted() async throws {
        let fixture = try await FlushFixture()
        let create = CreateProviderDeviceStep(providers: Self.registry(fixture))
        let view = FlushFixture.view(.simulated)
        let options = ["lose_reply": "create"]
        let error = await Self.thrown { () throws(StepError) in
            try await create.execute(Self.context(view, options: options))
        }
        #expect(error?.errorClass == .unknownOutcome)
        guard
            case .happened(let output) = try await create.resolve(Self.context(view, options: options, isInDoubt: true))
        else {
            Issue.record("not adopted")
            return
        }
        #expect(try ProviderDevice(output: output).generation == 1)
        await fixture.close()
    }

    /// The hard path: keys are not known, the effect comes late, and look-ups lag.
    @Test func lateEffectsAreSeenOnceTheSettleTimeIsOver() async throws {
        let fixture = try await FlushFixture()
        let create = CreateProviderDeviceStep(providers: Self.registry(fixture))
        let view = FlushFixture.view(.simulated)
        let options = ["lose_reply": "true", "late_ms": "150", "lookup_lag_ms": "100", "unique_keys": "false"]
        let secrets = ProviderOptions.encoded(options)
        #expect(create.settleTime(request: view.request, secrets: secrets) == .milliseconds(250) + SimulatedStore.limit)
        #expect(create.settleTime(request: view.request, secrets: []) == SimulatedStore.limit)
        _ = await Self.thrown { () throws(StepError) in try await create.execute(Self.context(view, options: options)) }
        guard case .absent = try await create.resolve(Self.context(view, options: options, isInDoubt: true)),
            case .nothingFound = try await create.compensate(Self.context(view, options: options, isInDoubt: true))
        else {
            Issue.record("seen too early")
            return
        }
        try await Task.sleep(for: .milliseconds(300))
        guard case .happened = try await create.resolve(Self.context(view, options: options, isInDoubt: true)),
            case .undone = try await create.compensate(Self.context(view, options: options, isInDoubt: true))
        else {
            Issue.record("never seen")
            return
        }
        #expect(try await fixture.count(Self.living) == 0)
        await fixture.close()
    }

    @Test func aRepeatedKeyEndsTheDelayAndMakesNoSecondDevice() async throws {
        let fixture = try await FlushFixture()
        let create = CreateProviderDeviceStep(providers: Self.registry(fixture))
        let view = FlushFixture.view(.simulated)
        let options = ["lose_reply": "create", "late_ms": "3600000"]
        _ = await Self.thrown { () throws(StepError) in try await create.execute(Self.context(view, options: options)) }
        guard case .repeatable = try await create.resolve(Self.context(view, options: options, isInDoubt: true)) else {
            Issue.record("not repeatable")
            return
        }
        _ = try await create.execute(Self.context(view, options: options, attempt: 2))
        #expect(try await fixture.count("SELECT count(*) FROM simulated_device WHERE appears_at <= now()") == 1)
        await fixture.close()
    }

    /// Extras can only be late effects of attempts that had been given up.
    @Test func resolvingDestroysWhatIsNotAdopted() async throws {
        let fixture = try await FlushFixture()
        let registry = Self.registry(fixture)
        let create = CreateProviderDeviceStep(providers: registry)
        let view = FlushFixture.view(.simulated)
        let options = ["unique_keys": "false"]
        for generation in [1, 2, 2] {
            _ = try await create.execute(Self.context(view, options: options, generation: generation))
        }
        #expect(try await fixture.count(Self.living) == 3)
        guard
            case .happened(let output) = try await create.resolve(
                Self.context(view, options: options, generation: 2, isInDoubt: true))
        else {
            Issue.record("not adopted")
            return
        }
        #expect(try ProviderDevice(output: output).generation == 2)
        #expect(try await fixture.count(Self.living) == 1)
        // A fenced process that made a third one removes it, and only it.
        let third = try await create.execute(Self.context(view, options: options, generation: 3)).output
        let context = Self.context(view, generation: 3, outputs: [DeviceStep.createProviderDevice: output])
        try await create.discard(context, output: output)
        #expect(try await fixture.count(Self.living) == 2)
        try await create.discard(context, output: third)
        #expect(try await fixture.count(Self.living) == 1)
        await fixture.close()
    }

    @Test func bootingGoesOnWhileNobodyWaits() async throws {
        let fixture = try await FlushFixture()
        let registry = Self.registry(fixture, SimulatedBehaviour(boot: .milliseconds(400)))
        let view = FlushFixture.view(.simulated)
        let output = try await CreateProviderDeviceStep(providers: registry).execute(Self.context(view)).output
        let start = StartDeviceStep(providers: registry)
        let context = Self.context(view, DeviceStep.startDevice, outputs: [DeviceStep.createProviderDevice: output])
        let clock = ContinuousClock()
        let first = try await clock.measure { _ = try await start.execute(context) }
        #expect(first >= .milliseconds(390))
        let second = try await clock.measure { _ = try await start.execute(context) }
        #expect(second < .milliseconds(300))
        // Given up half-way: a lost reply.
        let other = FlushFixture.view(.simulated)
        let made = try await CreateProviderDeviceStep(providers: registry).execute(Self.context(other)).output
        let hanging = Task {
            await Self.thrown { () throws(StepError) in
                try await start.execute(
                    Self.context(other, DeviceStep.startDevice, outputs: [DeviceStep.createProviderDevice: made]))
            }
        }
        hanging.cancel()
        #expect(await hanging.value?.errorClass == .unknownOutcome)
        await fixture.close()
    }

    @Test func callsThatComeTogetherShareTransactions() async throws {
        let fixture = try await FlushFixture()
        let create = CreateProviderDeviceStep(providers: Self.registry(fixture))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<400 {
                group.addTask { _ = try await create.execute(Self.context(FlushFixture.view(.simulated))) }
            }
            try await group.waitForAll()
        }
        #expect(try await fixture.count(Self.living) == 400)
        #expect(try await fixture.count("SELECT count(DISTINCT xmin::text) FROM simulated_device") < 100)
        await fixture.close()
    }

    @Test func nothingHappensWithoutTrustInTheLease() async throws {
        let fixture = try await FlushFixture()
        let create = CreateProviderDeviceStep(providers: Self.registry(fixture))
        var context = Self.context(FlushFixture.view(.simulated))
        context.authorize = { () throws(StepError) in throw StepError(.leaseLost, reason: "LEASE_LOST", message: "") }
        let untrusted = context
        #expect(
            await Self.thrown { () throws(StepError) in try await create.execute(untrusted) }?.errorClass == .leaseLost)
        #expect(try await fixture.count(Self.living) == 0)
        await fixture.close()
    }

    private static func locked(_ fixture: FlushFixture) async throws -> PostgresConnection {
        let stranger = try await PostgresConnection.connect(fixture.database.engineConfiguration)
        try await stranger.execute("BEGIN; LOCK TABLE simulated_device IN ACCESS EXCLUSIVE MODE")
        return stranger
    }

    /// What waits for a lock takes effect within the limit or never, even if nobody waits for the call any more.
    @Test func whatWaitsForALockIsGivenUpByTheDatabase() async throws {
        let fixture = try await FlushFixture()
        let create = CreateProviderDeviceStep(providers: Self.registry(fixture))
        let views = (0..<3).map { _ in FlushFixture.view(.simulated) }
        // The clock is known, and the statements are prepared.
        _ = try await create.execute(Self.context(views[0]))
        let stranger = try await Self.locked(fixture)
        let abandoned = Task {
            await Self.thrown { () throws(StepError) in try await create.execute(Self.context(views[1])) }
        }
        let waiting = await Self.thrown { () throws(StepError) in try await create.execute(Self.context(views[2])) }
        // The database said no: nothing happened.
        #expect(waiting?.errorClass == .unavailable)
        abandoned.cancel()
        #expect(await abandoned.value?.errorClass == .unavailable)
        try await stranger.execute("COMMIT")
        await stranger.close()
        try await Task.sleep(for: .milliseconds(200))
        #expect(try await fixture.count(Self.living) == 1)
        await fixture.close()
    }

    /// Counts how often it is asked whether a request may go, and says no from some time on.
    private final class Lease: Sendable {
        private let state = Mutex((asked: 0, isTrusted: true))

        var asked: Int { self.state.withLock { $0.asked } }
        func lose() { self.state.withLock { $0.isTrusted = false } }

        func context(_ view: SagaView) -> StepContext {
            var context = SimulatedProviderTests.context(view)
            context.authorize = { [self] () throws(StepError) in
                let isTrusted = self.state.withLock { state in
                    state.asked += 1
                    return state.isTrusted
                }
                guard isTrusted else { throw StepError(.leaseLost, reason: "LEASE_LOST", message: "") }
            }
            return context
        }
    }

    /// Two batches are under way; what waits for its turn is asked again whether it may go, and goes away with its task.
    @Test func whatIsQueuedLeavesOnlyIfItMayStill() async throws {
        let fixture = try await FlushFixture()
        let create = CreateProviderDeviceStep(providers: Self.registry(fixture))
        _ = try await create.execute(Self.context(FlushFixture.view(.simulated)))
        let stranger = try await Self.locked(fixture)
        let lease = Lease()
        func call() -> Task<StepError?, Never> {
            let context = lease.context(FlushFixture.view(.simulated))
            return Task { await Self.thrown { () throws(StepError) in try await create.execute(context) } }
        }
        // One by one, so that each takes up a batch of its own.
        let first = call()
        while lease.asked < 1 { try await Task.sleep(for: .milliseconds(1)) }
        let second = call()
        while lease.asked < 2 { try await Task.sleep(for: .milliseconds(1)) }
        let (queued, cancelled) = (call(), call())
        try await Task.sleep(for: .milliseconds(20))
        #expect(lease.asked == 2, "not asked before their turn")
        cancelled.cancel()
        #expect(await cancelled.value?.errorClass == .unavailable)
        lease.lose()
        try await stranger.execute("COMMIT")
        await stranger.close()
        #expect(await queued.value?.errorClass == .leaseLost)
        #expect(await first.value == nil)
        #expect(await second.value == nil)
        #expect(try await fixture.count(Self.living) == 3)
        await fixture.close()
    }

    /// A request that is held up on its way, by a proxy or a stopped process, is late by the database's own clock.
    @Test func whatArrivesAfterItsDeadlineDoesNothing() async throws {
        let fixture = try await FlushFixture()
        let proxy = try HoldingProxy(to: fixture.database)
        let pool = PostgresPool(proxy.configuration, size: 1, maximumWaiters: 10)
        let provider = SimulatedProvider(configuration: SimulatedConfiguration(), database: pool)
        let create = CreateProviderDeviceStep(providers: ProviderRegistry([provider], default: .simulated))
        _ = try await create.execute(Self.context(FlushFixture.view(.simulated)))
        proxy.hold()
        let call = Task {
            await Self.thrown { () throws(StepError) in
                try await create.execute(Self.context(FlushFixture.view(.simulated)))
            }
        }
        try await Task.sleep(for: SimulatedStore.limit + .milliseconds(500))
        proxy.letGo()
        #expect(await call.value?.errorClass == .unavailable)
        #expect(try await fixture.count(Self.living) == 1)
        // And the next one is well.
        _ = try await create.execute(Self.context(FlushFixture.view(.simulated)))
        #expect(try await fixture.count(Self.living) == 2)
        await pool.shutdown()
        await fixture.close()
    }
}

extension Execution {
    /// What it came to, or what the job is asked about by.
    fileprivate var output: String {
        switch self {
        case .done(let output): output
        case .pending(let job): job.output
        }
    }
}
