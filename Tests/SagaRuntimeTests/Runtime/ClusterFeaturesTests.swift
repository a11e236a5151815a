import Logging
@testable import SagaRuntime
import TestSupport
import Testing

@Suite struct ClusterFeaturesTests {
    /// What an older program would misread is on only while all live instances know it.
    @Test func featureIsOnOnceAllLiveInstancesPublishIt() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let pool = PostgresPool(database.configuration, size: 1, maximumWaiters: 10)
        let features = ClusterFeatures(pool: pool, logger: logger)
        #expect(!features.isOn(.features))
        // Nobody is there: nothing is known.
        try await features.look()
        #expect(!features.isOn(.features))
        func register(_ name: String) async throws -> InstanceLease {
            try await InstanceLease.register(
                InstanceLease.Configuration(
                    connection: database.configuration, name: name, duration: .seconds(60), renewal: .seconds(20)),
                lock: nil, clock: DatabaseClock(), logger: logger)
        }
        _ = try await register("a")
        _ = try await register("b")
        try await features.look()
        #expect(features.isOn(.features))
        // An older program registers as it always has. It counts until it is fenced: with its lease over it may come back.
        try await pool.execute(
            """
            INSERT INTO saga_instance (instance_id, name, nonce, lease_until)
            VALUES (1000, 'old', gen_random_uuid(), clock_timestamp() - interval '1 hour')
            """)
        try await features.look()
        #expect(!features.isOn(.features))
        try await pool.execute("UPDATE saga_instance SET fenced = true WHERE name = 'old'")
        try await features.look()
        #expect(features.isOn(.features))
        // What this program doesn't know is never on.
        try await pool.execute("UPDATE saga_instance SET features = features || '{unheard-of}'")
        try await features.look()
        #expect(features.isOn(.features) && !features.isOn("unheard-of"))
        await pool.shutdown()
    }
}
