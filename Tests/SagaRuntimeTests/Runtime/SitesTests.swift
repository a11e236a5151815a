import TestSupport
import Testing

@testable import SagaRuntime

@Suite(.serialized) struct SitesTests {
    private static func add(_ instance: Int64, _ sites: String, to database: TestDatabase) async throws {
        let connection = try await PostgresConnection.connect(database.engineConfiguration)
        try await connection.execute(
            "INSERT INTO saga_instance (instance_id, name, nonce, lease_until, sites)"
                + " VALUES (\(instance), 'instance-\(instance)', gen_random_uuid(), now(), \(sites))")
        await connection.close()
    }

    @Test func instancesShareWhatASiteCanTake() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let pool = PostgresPool(database.engineConfiguration, size: 1, maximumWaiters: 10)
        for instance in 1...3 { try await Self.add(Int64(instance), "ARRAY['a']", to: database) }
        try await Self.add(4, "ARRAY['b']", to: database)
        var shares: [CallLimits] = []
        for instance in 1...3 {
            let sites = Sites(pool: pool) { ["a"] }
            try await sites.refresh(instance: Int64(instance))
            shares.append(sites.share(of: CallLimits(concurrency: 8, callsPerSecond: 6), at: "a"))
            #expect(sites.isServed("a") && sites.isServed("b") && !sites.isServed("c"))
        }
        // Whole shares; what is left over goes to the first ones.
        #expect(shares.map(\.concurrency) == [3, 3, 2])
        #expect(shares.map(\.callsPerSecond) == [2, 2, 2])
        let last = Sites(pool: pool) { ["a"] }
        try await last.refresh(instance: 3)
        #expect(last.share(of: CallLimits(concurrency: 2), at: "a").concurrency == 0)
        await pool.shutdown()
    }

    @Test func oneThatTellsNothingKnowsNoSites() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let pool = PostgresPool(database.engineConfiguration, size: 1, maximumWaiters: 10)
        try await Self.add(1, "NULL", to: database)
        let sites = Sites(pool: pool) { [] }
        try await sites.refresh(instance: 1)
        #expect(sites.isKnownByAll, "it publishes that it serves none")
        try await Self.add(2, "NULL", to: database)
        try await sites.refresh(instance: 1)
        #expect(!sites.isKnownByAll)
        await pool.shutdown()
    }
}
