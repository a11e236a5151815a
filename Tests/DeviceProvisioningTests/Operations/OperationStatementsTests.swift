import SagaRuntime
import TestSupport
import Testing

@testable import DeviceProvisioning

@Suite(.serialized) struct OperationStatementsTests {
    private static let claim = OperationStatements.claim(.deletion)
    private static let remove = OperationStatements.remove(coolDown: .seconds(30))

    /// A creation that has come to its end, or as far as its record.
    private static func created(_ fixture: FlushFixture, isDone: Bool = true) async throws -> SagaView {
        var view = FlushFixture.view(.simulated)
        view.outputs = [
            DeviceStep.allocatePorts: #"{"site":"cellar","host":"h","adb":5555,"webrtc":8080}"#,
            DeviceStep.createProviderDevice: ProviderDevice(externalID: "ext-1", host: "h", generation: 2).output,
            DeviceStep.reportQuotaUsage: UsageKey.output(generation: 2),
            DeviceStep.startDevice: DeviceConnection(host: "h", adbPort: 5555, webRTCPort: 8080).output,
        ]
        try await fixture.run(DeviceStatements.record, [view])
        if isDone { try await fixture.run(DeviceStatements.markRunning, [view]) }
        return view
    }

    /// A saga that wants the creation's device.
    ///
    /// - Parameter way: what its call has found.
    private static func operation(on creation: SagaView, _ way: ClaimedWay? = nil) -> SagaView {
        var view = FlushFixture.view()
        view.resourceID = creation.resourceID
        view.request = creation.request
        view.outputs = way.map { [DeviceStep.claimDevice: $0.output] } ?? [:]
        return view
    }

    @Test func aDeviceIsClaimedOnce() async throws {
        let fixture = try await FlushFixture()
        let creation = try await Self.created(fixture)
        // The earlier in the flush gets it.
        let (first, second) = (Self.operation(on: creation), Self.operation(on: creation))
        let granted = try await fixture.run(Self.claim, [first, second])
        #expect(Array(granted.keys) == [first.sagaID])
        #expect(try await fixture.run(Self.claim, [second]).isEmpty)
        // A flush that is sent again changes nothing.
        #expect(try await fixture.run(Self.claim, [first]).count == 1)
        let record = try #require(try await DeviceStore(database: fixture.pool).device(creation.resourceID))
        #expect(record.status == .deleting && record.holder == first.sagaID.rawValue)
        #expect(record.sagaID == first.sagaID.rawValue && record.creationSagaID == creation.sagaID.rawValue)
        #expect(record.site == "cellar")
        await fixture.close()
    }

    @Test func itLeavesWhatTheStepsAfterItNeed() async throws {
        let fixture = try await FlushFixture()
        var creation = try await Self.created(fixture, isDone: false)
        creation.doubtfulSteps = [DeviceStep.createProviderDevice]
        try await fixture.run(DeviceStatements.markRunning, [creation])
        _ = try await fixture.rows(
            """
            INSERT INTO port (host, adb_port, webrtc_port, pool, saga_id, device_id, free_at)
            VALUES ('h', 5555, 8080, 'p', '\(creation.sagaID)', '\(creation.resourceID)', now()) RETURNING host
            """)
        let operation = Self.operation(on: creation)
        let output = try #require(try await fixture.run(Self.claim, [operation])[operation.sagaID])
        let outputs = [DeviceStep.claimDevice: output]
        guard case .there(let device) = try ClaimedDevice(outputs) else { return #expect(Bool(false)) }
        #expect(device.creation == creation.sagaID && device.ports == PortPair(host: "h", adb: 5555, webRTC: 8080))
        #expect(device.made.device == ProviderDevice(externalID: "ext-1", host: "h", generation: 2))
        #expect(device.made.isInDoubt && device.made.usage == 2)
        #expect(SiteOutput.site(outputs) == "cellar")
        await fixture.close()
    }

    @Test func whatItsCreationHoldsIsNotFree() async throws {
        let fixture = try await FlushFixture()
        for isOfOlderProgram in [false, true] {
            let creation = try await Self.created(fixture, isDone: false)
            if isOfOlderProgram { try await fixture.connection.execute("UPDATE devices SET operation_saga_id = NULL") }
            let operation = Self.operation(on: creation)
            #expect(try await fixture.run(Self.claim, [operation]).isEmpty)
            // Found to have ended, it holds nothing any more. Another than the holder says nothing.
            let other = Self.operation(on: creation, .over("saga_1730188800000_aaaaaaaaaa"))
            #expect(try await fixture.run(Self.claim, [other]).isEmpty)
            let over = Self.operation(on: creation, .over(creation.sagaID.rawValue))
            #expect(try await fixture.run(Self.claim, [over]).count == 1)
        }
        await fixture.close()
    }

    @Test func nothingIsClaimedOnlyWhereNothingIs() async throws {
        let fixture = try await FlushFixture()
        let creation = try await Self.created(fixture)
        // The row has come about meanwhile.
        #expect(try await fixture.run(Self.claim, [Self.operation(on: creation, .gone)]).count == 1)
        let unknown = FlushFixture.view()
        #expect(try await fixture.run(Self.claim, [Self.operation(on: unknown)]).isEmpty)
        let gone = Self.operation(on: unknown, .gone)
        let output = try #require(try await fixture.run(Self.claim, [gone])[gone.sagaID])
        #expect(try ClaimedDevice([DeviceStep.claimDevice: output]) == .nothing)
        await fixture.close()
    }

    /// What may be claimed, by the status that the device has; and what needs nothing done.
    @Test(arguments: DeviceOperation.allCases) func aClaimLooksAtTheStatus(_ operation: DeviceOperation) async throws {
        let fixture = try await FlushFixture()
        let creation = try await Self.created(fixture)
        for status in DeviceStatus.allCases where status != .creating && status != .deleting {
            try await fixture.connection.execute(
                "UPDATE devices SET status = '\(status.name)', operation_saga_id = NULL, changed_by_saga_id = NULL")
            let saga = Self.operation(on: creation)
            let output = try await fixture.run(OperationStatements.claim(operation), [saga])[saga.sagaID]
            let record = try #require(try await DeviceStore(database: fixture.pool).device(creation.resourceID))
            if operation.from?.contains(status) ?? true {
                #expect(record.holder == saga.sagaID.rawValue && record.status == operation.during)
                let claimed = try ClaimedDevice([DeviceStep.claimDevice: try #require(output)])
                #expect(claimed.before == status)
                // A flush that is sent again finds it claimed, and what it was before is not known any more.
                let again = try #require(
                    try await fixture.run(OperationStatements.claim(operation), [saga])[saga.sagaID])
                guard case .there(var device) = claimed else { return #expect(Bool(false), "it is there") }
                device.before = nil
                #expect(try ClaimedDevice([DeviceStep.claimDevice: again]) == .there(device))
            } else {
                #expect(output == (status == operation.goal ? #"{"nothing":true}"# : nil))
                #expect(record.holder.isEmpty && record.status == status)
            }
        }
        await fixture.close()
    }

    @Test func whatIsDoneIsGivenBack() async throws {
        let fixture = try await FlushFixture()
        let creation = try await Self.created(fixture)
        var saga = Self.operation(on: creation)
        func record() async throws -> DeviceRecord {
            try #require(try await DeviceStore(database: fixture.pool).device(creation.resourceID))
        }
        _ = try await fixture.run(OperationStatements.claim(.restart), [saga])
        try await fixture.run(OperationStatements.markStarting, [saga])
        #expect(try await record().status == .starting)
        // Another saga's word doesn't count.
        #expect(try await fixture.run(OperationStatements.update(.stopped), [Self.operation(on: creation)]).isEmpty)
        saga.failure = SagaFailure(cause: .stepFailed, step: "START_DEVICE", reason: "BOOT_FAILED", message: "no")
        try await fixture.run(OperationStatements.giveBack, [saga])
        let failed = try await record()
        #expect(failed.status == .stopped && failed.statusReason == "BOOT_FAILED: no")
        #expect(failed.holder.isEmpty && failed.connection == nil)
        _ = try await fixture.run(OperationStatements.claim(.start), [saga])
        saga.outputs[DeviceStep.startDevice] = DeviceConnection(host: "h", adbPort: 5555, webRTCPort: 8080).output
        let update = OperationStatements.update(.running, connection: DeviceStep.startDevice)
        #expect(try await fixture.run(update, [saga]).count == 1)
        let running = try await record()
        #expect(running.status == .running && running.statusReason.isEmpty && running.connection?.adbPort == 5555)
        _ = try await fixture.run(OperationStatements.claim(.stop), [saga])
        saga.outputs[DeviceStep.stopDevice] = #"{"missing":true}"#
        _ = try await fixture.run(OperationStatements.update(.stopped), [saga])
        let missing = try await record()
        #expect(missing.status == .error && missing.statusReason.hasPrefix("DEVICE_MISSING"))
        await fixture.close()
    }

    @Test func aLockedDeviceIsBusy() async throws {
        let fixture = try await FlushFixture()
        let creation = try await Self.created(fixture)
        let other = try await PostgresConnection.connect(fixture.database.engineConfiguration)
        try await other.execute("BEGIN; SELECT 1 FROM devices FOR UPDATE")
        let operation = Self.operation(on: creation)
        #expect(try await fixture.run(Self.claim, [operation]).isEmpty)
        try await other.execute("COMMIT")
        #expect(try await fixture.run(Self.claim, [operation]).count == 1)
        await other.close()
        await fixture.close()
    }

    @Test func onlyTheHolderRemovesIt() async throws {
        let fixture = try await FlushFixture()
        let creation = try await Self.created(fixture)
        _ = try await fixture.rows(
            """
            INSERT INTO port (host, adb_port, webrtc_port, pool, saga_id, device_id, free_at)
            VALUES ('h', 5555, 8080, 'p', '\(creation.sagaID)', '\(creation.resourceID)', now()) RETURNING host
            """)
        let (holder, other) = (Self.operation(on: creation), Self.operation(on: creation))
        _ = try await fixture.run(Self.claim, [holder])
        #expect(try await fixture.run(Self.remove, [other]).isEmpty)
        #expect(try await fixture.count("SELECT count(*) FROM port WHERE saga_id IS NOT NULL") == 1)
        #expect(try await fixture.run(Self.remove, [holder]).count == 1)
        #expect(try await fixture.count("SELECT count(*) FROM devices") == 0)
        #expect(
            try await fixture.count(
                "SELECT count(*) FROM port WHERE saga_id IS NULL AND free_at > now() + interval '20 seconds'") == 1)
        await fixture.close()
    }

    @Test func whatNobodyWroteDownIsDoubtful() async throws {
        let fixture = try await FlushFixture()
        let creation = try await Self.created(fixture)
        try await fixture.connection.execute("UPDATE devices SET made = NULL, site = NULL")
        let operation = Self.operation(on: creation)
        let output = try #require(try await fixture.run(Self.claim, [operation])[operation.sagaID])
        guard case .there(let device) = try ClaimedDevice([DeviceStep.claimDevice: output]) else {
            return #expect(Bool(false))
        }
        #expect(device.made.device == nil && device.made.isInDoubt && device.made.usage == nil)
        #expect(UsageKey.key(device.creation, generation: 1) == "\(creation.sagaID):REPORT_QUOTA_USAGE:1")
        await fixture.close()
    }

    /// Statuses of operations that come later: programs of this version write them, older ones survive them.
    @Test func furtherStatusesAreAllowed() async throws {
        let fixture = try await FlushFixture()
        _ = try await Self.created(fixture)
        for status in ["STARTING", "STOPPING"] {
            try await fixture.connection.execute("UPDATE devices SET status = '\(status)'")
        }
        await #expect(throws: PostgresError.self) {
            try await fixture.connection.execute("UPDATE devices SET status = 'FLYING'")
        }
        await fixture.close()
    }
}
