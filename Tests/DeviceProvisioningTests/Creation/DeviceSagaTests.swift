import Logging
import SagaRuntime
import TestSupport
import Testing

@testable import DeviceProvisioning

/// The whole saga on the real engine: what it does, and that nothing stays when it is undone.
@Suite(.serialized) struct DeviceSagaTests {
    /// A running engine with the simulated provider and a user service.
    private struct Fixture {
        let tables: FlushFixture
        let runtime: SagaRuntime
        let ledger: UserServiceLedger
        let quota: QuotaClient
        let running: Task<Void, any Error>

        init(
            pairs: Int? = nil, honoursKeys: Bool = true, doubt: QuotaConfiguration.Doubt = .park,
            logger: Logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        ) async throws {
            self.tables = try await FlushFixture(migrations: SagaMigrations.all + DeviceMigrations.all)
            self.ledger = try UserServiceLedger()
            self.quota = QuotaClient(
                configuration: try QuotaConfiguration(
                    baseURL: self.ledger.url, jwtSecret: "0123456789abcdef0123456789abcdef", isIdempotent: honoursKeys,
                    doubt: doubt, timeout: .seconds(2)), logger: logger)
            let hosts = pairs.map {
                SimulatedConfiguration.cappedHosts(count: 1, adb: 5555...(5554 + $0), webRTC: 8080...(8079 + $0))
            }
            let provider = SimulatedProvider(
                configuration: SimulatedConfiguration(hosts: hosts ?? []), database: self.tables.pool)
            let providers = ProviderRegistry([provider], default: .simulated)
            try await PortKeeper(providers: providers, database: self.tables.pool).prepare()
            let quick = RetryPolicy(maximumRetries: 3, initialDelay: .milliseconds(20), maximumDelay: .milliseconds(50))
            var configuration = SagaRuntimeConfiguration(
                connection: self.tables.database.configuration, instanceName: "test", dataDirectory: nil)
            configuration.sites = { providers.served }
            self.runtime = SagaRuntime(
                configuration: configuration,
                definitions: DeviceCreation.definitions(
                    providers: providers, quota: self.quota,
                    configuration: DeviceCreation.Configuration(
                        portCoolDown: .zero, retry: quick,
                        undoRetry: RetryPolicy(
                            maximumRetries: 8, initialDelay: .milliseconds(20), maximumDelay: .milliseconds(50)))),
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            let runtime = self.runtime
            self.quota.useClock { runtime.now }
            self.running = Task { try await runtime.run() }
            while !runtime.isServing { try await Task.sleep(for: .milliseconds(5)) }
        }

        func close() async {
            self.runtime.beginGracefulShutdown()
            _ = try? await self.running.value
            await self.quota.shutdown()
            await self.tables.close()
        }

        func create(
            options: [String: String] = [:], timeout: Duration = .seconds(60), until milestone: Milestone = .finished
        ) async throws -> SagaSnapshot {
            let device = DeviceID.mint()
            let request = DeviceRequest(deviceID: device, name: "phone", provider: .simulated, userID: "user-1")
            let (_, snapshot) = try await self.runtime.start(
                NewSaga(
                    id: self.runtime.mintID(), type: DeviceCreation.type, userID: "user-1", resourceID: device,
                    requestID: "", method: 1, requestDigest: [], batchID: "", request: request.encoded(),
                    secrets: ProviderOptions.encoded(options), timeout: timeout), until: milestone)
            return snapshot
        }

        /// The audit from outside: who holds what.
        func holdings() async throws -> [String] {
            try await self.tables.rows(
                """
                SELECT 'simulated ' || saga_id FROM simulated_device WHERE destroyed_at IS NULL
                UNION ALL SELECT 'port ' || saga_id FROM port WHERE saga_id IS NOT NULL
                UNION ALL SELECT 'device ' || saga_id FROM devices
                ORDER BY 1
                """)
        }

        func expectNothingLeft(_ saga: SagaSnapshot) async throws {
            #expect(try await self.holdings().filter { $0.hasSuffix(saga.id.rawValue) } == [])
            #expect(self.ledger.devices[saga.resourceID] == nil)
        }
    }

    @Test func completes() async throws {
        let fixture = try await Fixture()
        let saga = try await fixture.create()
        #expect(saga.status == .completed && saga.currentStep == "START_DEVICE" && saga.failure == nil)
        #expect(try await fixture.holdings() == ["device", "port", "simulated"].map { "\($0) \(saga.id)" })
        #expect(fixture.ledger.devices == [saga.resourceID: 1])
        let record = try #require(try await DeviceStore(database: fixture.tables.pool).device(saga.resourceID))
        #expect(record.status == .running && record.connection?.host == "sim-00001")
        #expect(record.externalID == saga.providerDevice?.externalID && record.connection == saga.deviceConnection)
        await fixture.close()
    }

    @Test(arguments: [
        ("create:refused", "CREATE_PROVIDER_DEVICE", "PROVIDER_REFUSED"),
        ("create:unavailable", "CREATE_PROVIDER_DEVICE", "PROVIDER_UNAVAILABLE"),
        ("create:throttled", "CREATE_PROVIDER_DEVICE", "PROVIDER_UNAVAILABLE"),
        ("start:refused", "START_DEVICE", "BOOT_FAILED"),
        ("start:unavailable", "START_DEVICE", "PROVIDER_UNAVAILABLE"),
    ])
    func failingStepsAreUndone(_ fault: String, _ step: String, _ reason: String) async throws {
        let fixture = try await Fixture()
        let saga = try await fixture.create(options: ["fail": fault])
        #expect(saga.status == .compensated)
        #expect(saga.failure?.step == step && saga.failure?.reason == reason && saga.failure?.cause == .stepFailed)
        try await fixture.expectNothingLeft(saga)
        await fixture.close()
    }

    @Test func portsRunOutAndComeBack() async throws {
        let fixture = try await Fixture(pairs: 2)
        let first = try await fixture.create()
        // Undone, so its pair is free again (no cool-down here).
        let second = try await fixture.create(options: ["fail": "start:refused"])
        let third = try await fixture.create()
        let fourth = try await fixture.create()
        #expect(first.status == .completed && second.status == .compensated && third.status == .completed)
        #expect(fourth.status == .compensated && fourth.failure?.reason == "PORTS_EXHAUSTED")
        #expect(fourth.failure?.step == "ALLOCATE_PORTS")
        try await fixture.expectNothingLeft(fourth)
        await fixture.close()
    }

    @Test func aPairTakenByAStrangerIsReplaced() async throws {
        let fixture = try await Fixture(pairs: 3)
        let saga = try await fixture.create(options: ["fail": "create:conflict", "fail_times": "2"])
        #expect(saga.status == .completed)
        #expect(saga.deviceConnection?.adbPort == 5557)
        #expect(try await fixture.tables.count("SELECT count(*) FROM port WHERE blocked_until IS NOT NULL") == 2)
        // None is left for the next one.
        #expect(try await fixture.create().failure?.reason == "PORTS_EXHAUSTED")
        await fixture.close()
    }

    @Test func quotaRefusesOrIsAway() async throws {
        let fixture = try await Fixture()
        fixture.ledger.fail("increment", [.status(403)])
        let refused = try await fixture.create()
        #expect(refused.status == .compensated && refused.failure?.reason == "QUOTA_REFUSED")
        // Longer than the forward direction's attempts: the undo can't tell either, until the service is back.
        fixture.ledger.fail("increment", Array(repeating: .status(503), count: 6))
        let away = try await fixture.create()
        #expect(away.status == .compensated && away.failure?.reason == "QUOTA_UNAVAILABLE")
        for saga in [refused, away] { try await fixture.expectNothingLeft(saga) }
        await fixture.close()
    }

    @Test func lostAnswersAreFoundOutAbout() async throws {
        let fixture = try await Fixture()
        fixture.ledger.fail("increment", [.loseReply])
        let saga = try await fixture.create(options: ["lose_reply": "create,start"])
        #expect(saga.status == .completed)
        #expect(fixture.ledger.devices == [saga.resourceID: 1])
        #expect(try await fixture.tables.count("SELECT count(*) FROM simulated_device") == 1)
        // And on the way back.
        fixture.ledger.fail("increment", [.loseReply])
        fixture.ledger.fail("decrement", [.loseReply, .status(500)])
        let undone = try await fixture.create(
            options: ["lose_reply": "create,destroy", "fail": "start:refused,destroy:unavailable", "fail_times": "1"])
        #expect(undone.status == .compensated && undone.failure?.reason == "BOOT_FAILED")
        try await fixture.expectNothingLeft(undone)
        await fixture.close()
    }

    /// A service that honours keys and knows nothing else: an increment that it never saw must not be taken back, in
    /// whichever way the answers went missing.
    @Test(
        arguments: [
            // Counted at last; in doubt and never seen; seen, and then refused; never seen, and refused until the undo.
            [.drop, .loseReply, .drop, .drop], [.drop, .drop, .drop, .drop], [.loseReply, .status(403)],
            [.drop, .status(403)], [.drop, .status(502), .status(403), .drop, .status(503), .loseReply],
        ] as [[UserServiceLedger.Fault]])
    func usageIsNeitherLeftNorTakenTwice(_ faults: [UserServiceLedger.Fault]) async throws {
        let fixture = try await Fixture()
        fixture.ledger.fail("increment", faults)
        fixture.ledger.fail("decrement", [.drop, .loseReply, .status(404), .status(500)])
        let saga = try await fixture.create()
        #expect(saga.status == .compensated)
        try await fixture.expectNothingLeft(saga)
        #expect(fixture.ledger.devices.isEmpty)
        await fixture.close()
    }

    /// A gateway says no to the first attempts to take the usage back; a person need not look into that.
    @Test(arguments: [true, false])
    func anUndoThatMeetsAGatewayGoesOn(_ honoursKeys: Bool) async throws {
        let fixture = try await Fixture(honoursKeys: honoursKeys)
        fixture.ledger.fail("decrement", [401, 403, 404, 429, 302, 405].map { .status($0) })
        let saga = try await fixture.create(options: ["fail": "start:refused"])
        #expect(saga.status == .compensated && saga.failure?.reason == "BOOT_FAILED")
        try await fixture.expectNothingLeft(saga)
        await fixture.close()
    }

    @Test func aWrongAddressIsNoRefusal() async throws {
        for status in [401, 404] {
            let fixture = try await Fixture(honoursKeys: false)
            fixture.ledger.fail("increment", Array(repeating: .status(status), count: 10))
            let saga = try await fixture.create()
            #expect(saga.status == .compensated && saga.failure?.reason == "QUOTA_UNAVAILABLE")
            try await fixture.expectNothingLeft(saga)
            await fixture.close()
        }
    }

    /// The operator would rather have a wrong count than a saga that stands still; what may be wrong can be found.
    @Test func doubtAboutTheQuotaCanBeAccepted() async throws {
        let lines = LogLines()
        let fixture = try await Fixture(honoursKeys: false, doubt: .accept, logger: lines.logger)
        fixture.ledger.fail("increment", [.loseReply, .drop])
        let (counted, dropped) = (try await fixture.create(), try await fixture.create())
        for saga in [counted, dropped] { #expect(saga.status == .completed) }
        #expect(fixture.ledger.devices == [counted.resourceID: 1])
        fixture.ledger.fail("decrement", [.loseReply, .drop])
        let (back, left) = (
            try await fixture.create(options: ["fail": "start:refused"]),
            try await fixture.create(options: ["fail": "start:refused"])
        )
        for saga in [back, left] { #expect(saga.status == .compensated) }
        #expect(fixture.ledger.devices == [counted.resourceID: 1, left.resourceID: 1])
        // Each report was sent once; and each of unknown outcome is told with all that a reconciliation needs.
        #expect(fixture.ledger.requests == 6)
        let told = lines.all.filter { $0.contains("assumed") }
        for (saga, delta, suffix) in [
            (counted, "1", ""), (dropped, "1", ""), (back, "-1", ":undo"), (left, "-1", ":undo"),
        ] {
            let line = told.filter { $0.contains("saga_id=\(saga.id)") }
            #expect(line.count == 1)
            for part in [
                "delta=\(delta)", "user_id=user-1", "device_id=\(saga.resourceID)",
                "key=\(saga.id):REPORT_QUOTA_USAGE:1\(suffix)",
            ] { #expect(line.first?.contains(part) == true, "\(part)") }
        }
        await fixture.close()
    }

    /// A table that a stranger locks for longer than sagas and calls last: what waits for it is given up, and must not
    /// make a device afterwards.
    @Test func nothingAppearsAfterALockIsReleased() async throws {
        let fixture = try await Fixture()
        let stranger = try await PostgresConnection.connect(fixture.tables.database.engineConfiguration)
        try await stranger.execute("BEGIN; LOCK TABLE simulated_device IN ACCESS EXCLUSIVE MODE")
        async let sagas = withThrowingTaskGroup(of: SagaSnapshot.self) { group in
            for _ in 0..<40 { group.addTask { try await fixture.create(timeout: .seconds(1)) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        try await Task.sleep(for: .seconds(4))
        try await stranger.execute("COMMIT")
        await stranger.close()
        for saga in try await sagas {
            #expect(saga.status == .compensated && saga.failure?.reason == "TIMED_OUT")
            try await fixture.expectNothingLeft(saga)
        }
        await fixture.close()
    }

    @Test func lateEffectsAtAProviderThatIgnoresKeysAreAdopted() async throws {
        let fixture = try await Fixture()
        let saga = try await fixture.create(
            options: ["lose_reply": "create", "late_ms": "300", "lookup_lag_ms": "200", "unique_keys": "false"])
        #expect(saga.status == .completed)
        #expect(try await fixture.tables.count("SELECT count(*) FROM simulated_device") == 1)
        await fixture.close()
    }

    @Test func doubtAboutTheQuotaParksWhereKeysAreIgnoredAndNamesWhatIsLeft() async throws {
        let fixture = try await Fixture(honoursKeys: false)
        fixture.ledger.fail("increment", [.loseReply])
        let saga = try await fixture.create()
        #expect(saga.status == .parked && saga.currentStep == "REPORT_QUOTA_USAGE")
        #expect(fixture.ledger.requests == 1)
        // On the way back: the rest is undone all the same.
        fixture.ledger.fail("decrement", [.loseReply])
        let undoing = try await fixture.create(options: ["fail": "start:refused"])
        #expect(undoing.status == .parked && undoing.currentStep == "REPORT_QUOTA_USAGE")
        #expect(fixture.ledger.requests == 3)
        #expect(try await fixture.holdings().allSatisfy { !$0.hasSuffix(undoing.id.rawValue) })
        await fixture.close()
    }

    /// The only pointers to a device that can't be destroyed are its row and its ports.
    @Test func whatCanNotBeDestroyedKeepsItsRowAndItsPorts() async throws {
        let fixture = try await Fixture()
        let saga = try await fixture.create(options: ["fail": "start:refused,destroy:undecidable"])
        #expect(saga.status == .parked && saga.currentStep == "CREATE_PROVIDER_DEVICE")
        #expect(try await fixture.holdings() == ["device", "port", "simulated"].map { "\($0) \(saga.id)" })
        #expect(try await DeviceStore(database: fixture.tables.pool).device(saga.resourceID)?.status == .deleting)
        // The quota does not wait for it.
        #expect(fixture.ledger.devices.isEmpty)
        await fixture.close()
    }

    @Test func aDeadlineUndoesAStepThatHangs() async throws {
        let fixture = try await Fixture()
        for fault in ["create:hang", "start:hang"] {
            let saga = try await fixture.create(options: ["fail": fault], timeout: .milliseconds(500))
            #expect(saga.status == .compensated)
            #expect(saga.failure?.cause == .timedOut && saga.failure?.reason == "TIMED_OUT")
            try await fixture.expectNothingLeft(saga)
        }
        await fixture.close()
    }

    /// A device that boots for half an hour is cancelled meanwhile: nobody waits for the boot.
    @Test func aCommandEndsTheCallThatIsUnderWay() async throws {
        let fixture = try await Fixture()
        let options = ["boot_ms": "1800000"]
        var saga = try await fixture.create(options: options, timeout: .seconds(3600), until: .provisioned)
        // That all live servers know commands is seen within a second or so.
        while (try? await fixture.runtime.command(.cancel, to: saga.id, by: "ann", reason: "not needed")) != true {
            try await Task.sleep(for: .milliseconds(50))
        }
        saga = try await fixture.runtime.wait(for: saga.id, until: .finished)
        #expect(saga.status == .compensated && saga.failure?.cause == .cancelled)
        #expect(saga.failure?.step == DeviceStep.startDevice)
        try await fixture.expectNothingLeft(saga)
        // It says nothing about the provider.
        #expect(!fixture.runtime.isDown("site-simulated"))
        await fixture.close()
    }

    /// A user service that is down: undos wait for it, one looks after it, and none of them uses its attempts up.
    @Test func aServiceThatIsDownIsNotHammeredByEveryUndo() async throws {
        let fixture = try await Fixture()
        fixture.ledger.fail("decrement", Array(repeating: .status(500), count: 10_000))
        async let sagas = withThrowingTaskGroup(of: SagaSnapshot.self) { group in
            for _ in 0..<30 { group.addTask { try await fixture.create(options: ["fail": "start:refused"]) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        while fixture.ledger.requests < 35 { try await Task.sleep(for: .milliseconds(20)) }
        // Eight retries, 20 to 50 ms apart, would all be over by then, thirty times, and every saga parked. What doesn't depend
        // on the reports is undone.
        try await Task.sleep(for: .seconds(2))
        #expect(fixture.ledger.requests < 30 + 2 * 30)
        #expect(try await fixture.holdings() == [])
        fixture.ledger.fail("decrement", [])
        for saga in try await sagas {
            #expect(saga.status == .compensated)
            try await fixture.expectNothingLeft(saga)
        }
        await fixture.close()
    }

    @Test func manyAtOnce() async throws {
        let fixture = try await Fixture()
        let sagas = try await withThrowingTaskGroup(of: SagaSnapshot.self) { group in
            for index in 0..<200 {
                group.addTask { try await fixture.create(options: index % 4 == 0 ? ["fail": "start:refused"] : [:]) }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(sagas.count { $0.status == .completed } == 150 && sagas.count { $0.status == .compensated } == 50)
        #expect(try await fixture.holdings().count == 3 * 150)
        #expect(fixture.ledger.devices.count == 150 && fixture.ledger.devices.values.allSatisfy { $0 == 1 })
        await fixture.close()
    }
}
