@testable import SagaRuntime
import TestSupport
import Testing

/// `saga_now()`, the engine's only clock in SQL.
@Suite struct SagaNowTests {
    private static let sleep = SQLStatement("sleep", "SELECT pg_sleep(0.05)")
    private static let clocks = SQLStatement("clocks", "SELECT saga_now(), clock_timestamp()")

    private func makeDatabase() async throws -> TestDatabase {
        try await TestDatabase.make(migrations: SagaMigrations.all)
    }

    /// What comes later in a pipeline has a later time, in one transaction too: a lease that ends while a flush runs is over
    /// for the statements after it.
    @Test(arguments: [false, true], [false, true])
    func eachStatementOfAPipelineHasItsOwnTime(isTransaction: Bool, isPooled: Bool) async throws {
        var configuration = try await self.makeDatabase().engineConfiguration
        configuration.isTransactionPooled = isPooled
        let connection = try await PostgresConnection.connect(configuration)
        let queries = [SQLQuery(Self.clocks), SQLQuery(Self.sleep), SQLQuery(Self.clocks)]
        let results = isTransaction ? try await connection.transaction(queries) : try await connection.run(queries)
        let (first, last) = (try results[0].single(), try results[2].single())
        #expect(try first.timestamp(0) <= first.timestamp(1))
        #expect(try first.timestamp(1) + .milliseconds(50) <= last.timestamp(0))
        #expect(try last.timestamp(0) <= last.timestamp(1))
        await connection.close()
    }

    @Test func leaseThatEndsDuringATransactionIsOver() async throws {
        let connection = try await self.makeDatabase().connect()
        try await connection.execute(
            """
            INSERT INTO saga_instance (instance_id, name, nonce, lease_until)
            VALUES (1, 'a', gen_random_uuid(), 'infinity')
            """)
        let shorten = SQLStatement(
            "shorten", "UPDATE saga_instance SET lease_until = saga_now() + interval '20 ms' RETURNING true")
        let isHeld = SQLStatement("is_held", "SELECT lease_until > saga_now() FROM saga_instance")
        let results = try await connection.transaction([
            SQLQuery(shorten), SQLQuery(isHeld), SQLQuery(Self.sleep), SQLQuery(isHeld),
        ])
        #expect(try results[1].single().bool(0))
        #expect(try !results[3].single().bool(0))
        await connection.close()
    }

    /// A statement that had to wait for a row goes by the time at which it began: a renewal then promises no more than its
    /// sender trusts in, and a fencing takes nobody's lease for over that had been renewed meanwhile.
    @Test func statementThatWaitedKeepsTheTimeAtWhichItBegan() async throws {
        let database = try await self.makeDatabase()
        let (holder, waiter) = (try await database.connect(), try await database.connect())
        try await holder.execute(
            """
            INSERT INTO saga_instance (instance_id, name, nonce, lease_until)
            VALUES (1, 'a', gen_random_uuid(), 'infinity')
            """)
        try await holder.execute("BEGIN; UPDATE saga_instance SET lease_until = lease_until")
        let sent = BootTime.now
        async let renewal = waiter.run(
            SQLQuery(
                SQLStatement(
                    "renew",
                    "UPDATE saga_instance SET lease_until = saga_now() RETURNING lease_until, clock_timestamp()")))
        let waits = SQLStatement(
            "waits",
            "SELECT count(*) FROM pg_stat_activity WHERE pid = \(waiter.backendPID) AND wait_event_type = 'Lock'")
        let watcher = try await database.connect()
        while try await watcher.run(SQLQuery(waits)).single().int64(0) == 0, BootTime.now - sent < .seconds(20) {}
        _ = try await watcher.run(SQLQuery(Self.sleep))
        try await holder.execute("COMMIT")
        let row = try await renewal.single()
        #expect(try row.timestamp(0) + .milliseconds(50) <= row.timestamp(1))
    }

    /// An index is searched by it, and plans hold its text instead of a call.
    @Test func indexIsSearchedByIt() async throws {
        let connection = try await self.makeDatabase().connect()
        try await connection.execute(
            """
            CREATE TABLE due (at timestamptz PRIMARY KEY);
            SET enable_seqscan = off;
            SET enable_bitmapscan = off
            """)
        let plan = try await connection.run(
            SQLQuery(SQLStatement("plan", "EXPLAIN SELECT 1 FROM due WHERE at <= saga_now()"))
        ).map { try $0.text(0) }
        #expect(plan.contains { $0.contains("Index Cond: (at <= statement_timestamp())") }, "\(plan)")
        await connection.close()
    }
}
