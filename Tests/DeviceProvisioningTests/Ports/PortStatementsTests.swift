import SagaRuntime
import TestSupport
import Testing

@testable import DeviceProvisioning

// One after the other: each test has connections of its own, and the server a limit.
@Suite(.serialized) struct PortStatementsTests {
    private static let endless = PortPool(name: "simulated", supply: .endless(prefix: "sim"))

    private static func hosts(_ count: Int, pairs: Int = 3) -> PortPool {
        PortPool(
            name: "redroid",
            supply: .hosts(
                (1...count).map { PortHost(name: "h\($0)", adb: 5555...(5554 + pairs), webRTC: 8080...(8079 + pairs)) })
        )
    }

    private static func step(_ pools: [ProviderKind: PortPool]) -> DatabaseStep {
        PortStatements.allocate(pools: pools)
    }

    private static func seeded(_ fixture: FlushFixture, _ pool: PortPool) async throws -> DatabaseStep {
        try await PortKeeper(pools: [pool], database: fixture.pool).prepare()
        return Self.step([.redroid: pool])
    }

    @Test func grantsEachSagaItsOwnPairAndRefusesTheRest() async throws {
        let fixture = try await FlushFixture()
        let step = try await Self.seeded(fixture, Self.hosts(2))
        let views = (0..<7).map { _ in FlushFixture.view() }
        let granted = try await fixture.run(step, views)
        #expect(granted.count == 6)
        #expect(Set(granted.values).count == 6)
        #expect(views.prefix(6).allSatisfy { granted[$0.sagaID] != nil })
        // Devices are spread over the hosts.
        let first = try #require(try PortPair(output: granted[views[0].sagaID]))
        let second = try #require(try PortPair(output: granted[views[1].sagaID]))
        #expect(first.host != second.host && first.adb == second.adb)
        #expect(first.webRTC - first.adb == 8080 - 5555)
        #expect(try await fixture.run(step, [FlushFixture.view()]).isEmpty)
        #expect(try await fixture.count("SELECT count(*) FROM port WHERE saga_id IS NOT NULL") == 6)
        await fixture.close()
    }

    @Test func aPairIsReleasedByItsOwnerAloneAndRests() async throws {
        let fixture = try await FlushFixture()
        let step = try await Self.seeded(fixture, Self.hosts(1, pairs: 1))
        let owner = FlushFixture.view()
        #expect(try await fixture.run(step, [owner]).count == 1)
        try await fixture.run(PortStatements.release(coolDown: .seconds(60)), [FlushFixture.view()])
        #expect(try await fixture.count("SELECT count(*) FROM port WHERE saga_id IS NULL") == 0)
        try await fixture.run(PortStatements.release(coolDown: .seconds(60)), [owner])
        #expect(try await fixture.count("SELECT count(*) FROM port WHERE saga_id IS NULL AND device_id IS NULL") == 1)
        #expect(try await fixture.run(step, [FlushFixture.view()]).isEmpty)
        try await fixture.connection.execute("UPDATE port SET free_at = now() - interval '1 second'")
        #expect(try await fixture.run(step, [FlushFixture.view()]).count == 1)
        await fixture.close()
    }

    @Test func aPairTakenByAStrangerIsBlockedAndAnotherGranted() async throws {
        let fixture = try await FlushFixture()
        let step = try await Self.seeded(fixture, Self.hosts(1, pairs: 2))
        let saga = FlushFixture.view()
        let first = try await fixture.run(step, [saga])[saga.sagaID]
        let second = try await fixture.run(step, [saga])[saga.sagaID]
        #expect(first != nil && second != nil && first != second)
        let blocked =
            "SELECT count(*) FROM port WHERE saga_id IS NULL AND blocked_until > now() + interval '59 minutes'"
        #expect(try await fixture.count(blocked) == 1)
        #expect(try await fixture.count("SELECT count(*) FROM port WHERE saga_id = '\(saga.sagaID)'") == 1)
        // None is left: refused, and nothing is held any more.
        #expect(try await fixture.run(step, [saga]).isEmpty)
        #expect(try await fixture.count("SELECT count(*) FROM port WHERE saga_id IS NOT NULL") == 0)
        await fixture.close()
    }

    @Test func endlessPoolsMintPairsAndReuseReleasedOnes() async throws {
        let fixture = try await FlushFixture()
        let step = Self.step([.simulated: Self.endless])
        let views = (0..<1001).map { _ in FlushFixture.view(.simulated) }
        let granted = try await fixture.run(step, views)
        #expect(Set(granted.values).count == 1001)
        #expect(try await fixture.rows("SELECT DISTINCT host FROM port ORDER BY 1") == ["sim-00001", "sim-00002"])
        #expect(
            try await fixture.count(
                "SELECT count(*) FROM port WHERE adb_port BETWEEN 5555 AND 6554 AND webrtc_port BETWEEN 8080 AND 9079")
                == 1001)
        try await fixture.run(PortStatements.release(coolDown: .zero), Array(views.prefix(5)))
        try await fixture.run(step, (0..<7).map { _ in FlushFixture.view(.simulated) })
        #expect(try await fixture.count("SELECT count(*) FROM port") == 1003)
        await fixture.close()
    }

    @Test func virtualHostsKeepTheirNumbersHoweverMany() async throws {
        let fixture = try await FlushFixture()
        let step = Self.step([.simulated: Self.endless])
        for (pair, host) in [(999_999, "sim-01000"), (99_999_000, "sim-100000"), (5_000_000_000_999, "sim-5000000001")]
        {
            _ = try await fixture.count("SELECT setval('port_virtual_pair', \(pair), false)")
            let view = FlushFixture.view(.simulated)
            let pair = try PortPair(output: try await fixture.run(step, [view])[view.sagaID])
            #expect(pair?.host == host)
        }
        await fixture.close()
    }

    @Test func replicasThatStartTogetherAgree() async throws {
        let fixture = try await FlushFixture()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<6 {
                let pool = Self.hosts(3, pairs: 50 + index % 2)
                group.addTask { try await PortKeeper(pools: [pool], database: fixture.pool).prepare() }
            }
            try await group.waitForAll()
        }
        let count = try await fixture.count("SELECT count(*) FROM port")
        #expect(count == 150 || count == 153)
        await fixture.close()
    }

    @Test func poolsDoNotMixAndProvidersWithoutPortsGetNone() async throws {
        let fixture = try await FlushFixture()
        let pool = Self.hosts(1, pairs: 1)
        try await PortKeeper(pools: [pool], database: fixture.pool).prepare()
        let step = Self.step([.redroid: pool, .simulated: Self.endless])
        let views = [
            FlushFixture.view(), FlushFixture.view(.simulated), FlushFixture.view(.physical), FlushFixture.view(),
            FlushFixture.view(.simulated),
        ]
        let granted = try await fixture.run(step, views)
        #expect(granted[views[0].sagaID]?.contains("\"h1\"") == true)
        #expect(granted[views[1].sagaID]?.contains("\"sim-") == true)
        #expect(granted[views[2].sagaID] == "{}")
        #expect(granted[views[3].sagaID] == nil)
        #expect(granted[views[4].sagaID]?.contains("\"sim-") == true)
        await fixture.close()
    }

    @Test func flushesAtTheSameTimeNeverShareAPairNorWait() async throws {
        let fixture = try await FlushFixture()
        let step = try await Self.seeded(fixture, Self.hosts(4, pairs: 100))
        let outputs = try await withThrowingTaskGroup(of: [String].self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let connection = try await PostgresConnection.connect(fixture.database.engineConfiguration)
                    var outputs: [String] = []
                    for _ in 0..<10 {
                        let views = (0..<5).map { _ in FlushFixture.view() }
                        outputs += try await fixture.run(step, views, on: connection).values
                    }
                    await connection.close()
                    return outputs
                }
            }
            return try await group.reduce(into: [], +=)
        }
        #expect(outputs.count == 400)
        #expect(Set(outputs).count == 400)
        await fixture.close()
    }

    @Test func aDamagedRequestIsRefusedByTheDatabase() async throws {
        let fixture = try await FlushFixture()
        var view = FlushFixture.view()
        view.request = [77]
        let error = await #expect(throws: PostgresError.self) {
            try await fixture.run(Self.step([.redroid: Self.hosts(1)]), [view])
        }
        #expect(error?.sqlstateClass == "22")
        await fixture.close()
    }

    @Test func seedingFollowsTheConfiguration() async throws {
        let fixture = try await FlushFixture()
        let step = try await Self.seeded(fixture, Self.hosts(2))
        let holder = FlushFixture.view()
        try await fixture.run(step, [holder])
        // One host less, and other ports: free pairs that lie outside go, the held one stays until it is released.
        let other = PortPool(
            name: "redroid", supply: .hosts([PortHost(name: "h2", adb: 6000...6001, webRTC: 9000...9005)]))
        for _ in 0..<2 { try await PortKeeper(pools: [other], database: fixture.pool).prepare() }
        #expect(
            try await fixture.rows("SELECT host || ' ' || adb_port || ' ' || webrtc_port FROM port ORDER BY 1")
                == ["h1 5555 8080", "h2 6000 9000", "h2 6001 9001"])
        await fixture.close()
    }

    @Test func plansUseTheIndexes() async throws {
        let fixture = try await FlushFixture()
        let step = try await Self.seeded(fixture, Self.hosts(1))
        // The plan is made while the table is nearly empty, and must still be right when it is full.
        let plan = try await fixture.plan(step, FlushFixture.view()).joined(separator: "\n")
        #expect(!plan.contains("Seq Scan on port"), "\(plan)")
        #expect(plan.contains("port_free") && plan.contains("port_holder") && plan.contains("port_pkey"), "\(plan)")
        #expect(!plan.contains("Join Filter"), "\(plan)")
        await fixture.close()
    }
}
