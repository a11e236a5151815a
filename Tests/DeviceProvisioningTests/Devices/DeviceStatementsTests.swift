import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite(.serialized) struct DeviceStatementsTests {
    private static func made(_ view: SagaView) -> SagaView {
        var view = view
        view.outputs[DeviceStep.createProviderDevice] =
            ProviderDevice(externalID: "ext-1", host: "h", generation: 1).output
        return view
    }

    @Test func theRecordHoldsTheWholeRequest() async throws {
        let fixture = try await FlushFixture()
        var view = Self.made(FlushFixture.view())
        var request = DeviceRequestTests.full
        request.deviceID = view.resourceID
        view.request = request.encoded()
        #expect(try await fixture.run(DeviceStatements.record, [view]).count == 1)
        let record = try #require(try await DeviceStore(database: fixture.pool).device(view.resourceID))
        #expect(record.name == request.name && record.description == "d" && record.type == .tablet)
        #expect(record.status == .creating && record.provider == .redroid)
        #expect(record.userID == "u" && record.tenantID == "t" && record.spec == request.spec)
        #expect(record.tags == ["a", "b"] && record.metadata == ["k": "v", "": ""])
        #expect(record.externalID == "ext-1" && record.connection == nil && record.sagaID == view.sagaID.rawValue)
        #expect(record.createdAt == view.createdAt)
        await fixture.close()
    }

    @Test func runsThroughItsLife() async throws {
        let fixture = try await FlushFixture()
        let store = DeviceStore(database: fixture.pool)
        var view = Self.made(FlushFixture.view())
        // Twice: a pair of ports was unusable in between.
        for _ in 0..<2 { #expect(try await fixture.run(DeviceStatements.record, [view]).count == 1) }
        view.outputs[DeviceStep.startDevice] =
            DeviceConnection(host: "10.0.0.1", adbPort: 5555, webRTCPort: 8080, attributes: ["a": "b"]).output
        try await fixture.run(DeviceStatements.markRunning, [view])
        let running = try #require(try await store.device(view.resourceID))
        #expect(running.status == .running)
        #expect(
            running.connection
                == DeviceConnection(host: "10.0.0.1", adbPort: 5555, webRTCPort: 8080, attributes: ["a": "b"]))
        try await fixture.run(DeviceStatements.markDeleting, [view])
        #expect(try await store.device(view.resourceID)?.status == .deleting)
        try await fixture.run(DeviceStatements.remove, [view])
        #expect(try await store.device(view.resourceID) == nil)
        await fixture.close()
    }

    @Test func anotherSagasDeviceIsNeverTouched() async throws {
        let fixture = try await FlushFixture()
        let owner = Self.made(FlushFixture.view())
        try await fixture.run(DeviceStatements.record, [owner])
        var stranger = FlushFixture.view()
        stranger.resourceID = owner.resourceID
        stranger.request = owner.request
        #expect(try await fixture.run(DeviceStatements.record, [stranger]).isEmpty)
        for effect in [DeviceStatements.markRunning, DeviceStatements.markDeleting, DeviceStatements.remove] {
            try await fixture.run(effect, [stranger])
        }
        let record = try #require(try await DeviceStore(database: fixture.pool).device(owner.resourceID))
        #expect(record.status == .creating && record.sagaID == owner.sagaID.rawValue)
        await fixture.close()
    }

    @Test func updatesStayHOT() async throws {
        let fixture = try await FlushFixture()
        let views = (0..<300).map { _ in Self.made(FlushFixture.view()) }
        for start in stride(from: 0, to: 300, by: 60) {
            try await fixture.run(DeviceStatements.record, Array(views[start..<start + 60]))
        }
        for start in stride(from: 0, to: 300, by: 60) {
            try await fixture.run(
                DeviceStatements.markRunning,
                views[start..<start + 60].map { view in
                    var view = view
                    view.outputs[DeviceStep.startDevice] =
                        DeviceConnection(host: "sim-00001", adbPort: 5555, webRTCPort: 8080).output
                    return view
                })
        }
        try await fixture.connection.execute("SELECT pg_stat_force_next_flush()")
        let hot = try await fixture.count(
            "SELECT n_tup_hot_upd * 100 / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'devices'")
        #expect(hot >= 60, "only \(hot) % of the updates were HOT")
        await fixture.close()
    }
}
