import Logging
import SagaRuntime
import TestSupport
import Testing

@testable import DeviceProvisioning

/// What ALLOCATE_PORTS of version 2 grants, and where.
@Suite(.serialized) struct SiteStatementsTests {
    private struct Fixture {
        let tables: FlushFixture
        let sites: [ProviderSite]
        let step: DatabaseStep
        let store: SiteStore

        init(_ limits: [SiteLimits], order: [Int]? = nil) async throws {
            let tables = try await FlushFixture()
            let sites = limits.enumerated().map { index, limits in
                var configuration = SimulatedConfiguration()
                configuration.pool = "simulated/s\(index)"
                return ProviderSite(
                    name: "s\(index)", provider: SimulatedProvider(configuration: configuration, database: tables.pool),
                    limits: limits)
            }
            self.tables = tables
            self.sites = sites
            self.step = SiteStatements.allocate(choices: sites.count) { view, _ in
                if let name = SiteOutput.site(view.outputs) { return sites.filter { $0.name == name } }
                return (order ?? Array(sites.indices)).map { sites[$0] }
            }
            self.store = SiteStore(database: tables.pool)
            try await self.store.register(sites)
        }

        /// Where each of these was placed.
        func place(_ views: [SagaView]) async throws -> [String?] {
            let outputs = try await self.tables.run(self.step, views)
            return views.map { view in
                outputs[view.sagaID].flatMap { SiteOutput.site([DeviceStep.allocatePorts: $0]) }
            }
        }

        func views(_ count: Int) -> [SagaView] { (0..<count).map { _ in FlushFixture.view() } }

        func used() async throws -> [String] {
            try await self.tables.rows(
                "SELECT name || ' ' || devices_used || ' ' || memory_used_mb FROM site ORDER BY 1")
        }
    }

    @Test func theFirstSiteThatHasRoomIsGranted() async throws {
        let fixture = try await Fixture([SiteLimits(devices: 2), SiteLimits(devices: 1), SiteLimits()])
        #expect(try await fixture.place(fixture.views(5)) == ["s0", "s0", "s1", "s2", "s2"])
        // Memory is that of a plain request; what isn't limited isn't counted.
        #expect(try await fixture.used() == ["s0 2 8192", "s1 1 4096", "s2 0 0"])
        #expect(try await fixture.place(fixture.views(1)) == ["s2"])
        await fixture.tables.close()
    }

    /// Whoever asks for more than there is takes nothing from those who don't.
    @Test func whoDoesNotFitTakesNoRoom() async throws {
        let fixture = try await Fixture([SiteLimits(memoryMB: 30_000)])
        let large = (0..<3).map { _ in FlushFixture.view(memoryMB: 32_768) }
        let middling = (0..<2).map { _ in FlushFixture.view(memoryMB: 20_000) }
        let small = (0..<4).map { _ in FlushFixture.view(memoryMB: 512) }
        let places = try await fixture.place(large + middling + small)
        #expect(places.map { $0 != nil } == [false, false, false, true, false, true, true, true, true])
        #expect(try await fixture.used() == ["s0 5 22048"])
        await fixture.tables.close()
    }

    /// A name stands for the provider that had it first.
    @Test func aNameKeepsItsProvider() async throws {
        let fixture = try await Fixture([SiteLimits(devices: 2)])
        try await fixture.tables.pool.execute("UPDATE site SET provider = 'redroid'")
        try await fixture.store.register(fixture.sites)
        #expect(try await fixture.store.names() == [.redroid: ["s0"]])
        let registry = ProviderRegistry(sites: fixture.sites, default: .simulated)
        #expect(registry.served == ["s0", "provider:simulated"])
        registry.know(try await fixture.store.names())
        #expect(registry.served == [])
        await fixture.tables.close()
    }

    @Test func memoryIsRoomToo() async throws {
        let fixture = try await Fixture([SiteLimits(memoryMB: 10_000)])
        #expect(try await fixture.place(fixture.views(3)) == ["s0", "s0", nil])
        #expect(try await fixture.used() == ["s0 2 8192"])
        await fixture.tables.close()
    }

    @Test func whatIsReleasedComesBack() async throws {
        let fixture = try await Fixture([SiteLimits(devices: 1)])
        let first = FlushFixture.view()
        #expect(try await fixture.place([first]) == ["s0"])
        #expect(try await fixture.place(fixture.views(1)) == [nil])
        try await fixture.tables.run(PortStatements.release(coolDown: .zero), [first])
        try await fixture.store.collect()
        #expect(try await fixture.used() == ["s0 0 0"])
        #expect(try await fixture.place(fixture.views(1)) == ["s0"])
        // Nothing is taken off twice.
        try await fixture.store.collect()
        #expect(try await fixture.used() == ["s0 1 4096"])
        #expect(try await fixture.store.room() == ["s0": SiteRoom(devices: 0, memoryMB: nil)])
        await fixture.tables.close()
    }

    @Test func whoComesBackForAnotherPairStaysWhereItIs() async throws {
        let fixture = try await Fixture([SiteLimits(devices: 1), SiteLimits()])
        var view = FlushFixture.view()
        #expect(try await fixture.place([view]) == ["s0"])
        let output = try #require(
            try await fixture.tables.rows(
                "SELECT format('{\"site\":\"s0\",\"host\":%s,\"adb\":1,\"webrtc\":2}', to_json(host)) FROM port"
            ).first)
        view.outputs[DeviceStep.allocatePorts] = output
        #expect(try await fixture.place([view]) == ["s0"])
        try await fixture.store.collect()
        #expect(try await fixture.used() == ["s0 1 4096", "s1 0 0"])
        await fixture.tables.close()
    }

    @Test func flushesAtTheSameTimeNeverExceedTheLimitNorDeadlock() async throws {
        let limit = SiteLimits(devices: 40)
        let there = try await Fixture([limit, limit])
        let back = SiteStatements.allocate { _, _ in [there.sites[1], there.sites[0]] }
        let granted = try await withThrowingTaskGroup(of: Int.self) { group in
            for writer in 0..<4 {
                group.addTask {
                    let connection = try await PostgresConnection.connect(there.tables.database.engineConfiguration)
                    var granted = 0
                    for _ in 0..<5 {
                        let step = writer % 2 == 0 ? there.step : back
                        granted += try await there.tables.run(step, there.views(5), on: connection).count
                    }
                    await connection.close()
                    return granted
                }
            }
            return try await group.reduce(0, +)
        }
        #expect(granted == 80)
        #expect(try await there.used() == ["s0 40 163840", "s1 40 163840"])
        await there.tables.close()
    }

    @Test func whatIsThereCountsOnceASiteIsLimited() async throws {
        let fixture = try await Fixture([SiteLimits()])
        #expect(try await fixture.place(fixture.views(3)) == ["s0", "s0", "s0"])
        #expect(try await fixture.used() == ["s0 0 0"])
        var limited = fixture.sites[0]
        limited.limits.devices = 4
        for _ in 0..<2 { try await fixture.store.register([limited]) }
        #expect(try await fixture.used() == ["s0 3 0"])
        #expect(try await fixture.place(fixture.views(2)) == ["s0", nil])
        await fixture.tables.close()
    }
}
