@testable import SagaRuntime
import TestSupport
import Testing

/// Flushes and reads by the leaves of their days: what they address, and what becomes of them once a leaf has gone.
@Suite struct JournalLeafTests {
    private static func day(_ fixture: JournalFixture, _ offset: Int64 = 0) -> SagaLeaf {
        SagaLeaf(day: PartitionKeeper.day(fixture.clock.now()) + offset)
    }

    private static func id(_ leaf: SagaLeaf) -> SagaID {
        var generator = SystemRandomNumberGenerator()
        return SagaID(milliseconds: (leaf.day ?? 0) * 86_400_000 + 1000, using: &generator)
    }

    /// Sagas of a day whose first step is done, and one of the next day.
    private static func machines(_ fixture: JournalFixture, _ leaf: SagaLeaf) async -> [SagaMachine] {
        let other = SagaLeaf(day: (leaf.day ?? 0) + 1)
        var machines = await fixture.writeAll(
            [Self.id(leaf), Self.id(leaf), Self.id(other)].map { fixture.machine(id: $0) }
        ).map(\.machine)
        for index in machines.indices {
            let now = fixture.clock.moment()
            guard case .call(let call, _) = machines[index].next(now: now) else { continue }
            machines[index].callReturned(call, .succeeded(output: "{}"), asked: now, now: now)
        }
        return machines
    }

    private static func detach(_ fixture: JournalFixture, _ leaf: SagaLeaf) async throws {
        try await fixture.pool.execute(
            "ALTER TABLE saga_state DETACH PARTITION \(leaf.state); ALTER TABLE saga_event DETACH PARTITION \(leaf.event)"
        )
    }

    /// With 400 days, a plan that opens them all costs ten times as much.
    @Test func plansOpenTheirDayAlone() async throws {
        let fixture = try await JournalFixture.make()
        let leaf = Self.day(fixture)
        _ = await fixture.writeAll(await fixture.readyToEnd(2))
        let connection = try #require(fixture.connections().first)
        let names = SQLStatement("names", "SELECT name FROM pg_prepared_statements ORDER BY 1")
        let prepared = try await connection.run(SQLQuery(names)).map { (row) throws(PostgresError) in try row.text(0) }
        #expect(prepared.contains("day\(leaf.suffix)_journal_transition"), "\(prepared)")
        #expect(prepared.contains("day\(leaf.suffix)_journal_side_test_effect"), "\(prepared)")
        #expect(!prepared.contains("journal_transition"), "\(prepared)")
        let statements = JournalStatements()
        let texts = [
            statements.transition(on: leaf).text, statements.decision(step: JournalFixture.grant, on: leaf).text,
            statements.ride(JournalFixture.effect, on: leaf).text, statements.eraseSecrets(on: leaf).text,
            statements.reread(on: leaf).text, statements.create(step: JournalFixture.grant).text,
        ]
        for (number, text) in texts.enumerated() {
            try await connection.execute("PREPARE look\(number) AS \(text)")
            let plan = SQLStatement(
                "plan\(number)",
                """
                SELECT count(DISTINCT c.relname) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                WHERE l.pid = pg_backend_pid() AND c.relname ~ '^saga_(state|event)_[0-9]+$'
                """)
            // What a plan opens it locks, and EXPLAIN with it.
            let count = SQLStatement(
                "parameters\(number)",
                "SELECT 'EXPLAIN EXECUTE look\(number) (' || repeat('NULL, ', cardinality(parameter_types) - 1) || 'NULL)' "
                    + "FROM pg_prepared_statements WHERE name = 'look\(number)'")
            let explain = try await connection.run(SQLQuery(count)).single().text(0)
            let results = try await connection.transaction([
                SQLQuery(SQLStatement("explain\(number)", explain)), SQLQuery(plan),
            ])
            #expect(try results[1].single().int64(0) <= 2, "\(text)")
        }
        await fixture.close()
    }

    /// Somebody put a day away under another name: its sagas are nobody's any more, and the others of the flush go on.
    @Test func leafThatHasGoneHoldsNobodyElseUp() async throws {
        let fixture = try await JournalFixture.make()
        let gone = Self.day(fixture, 2)
        let machines = await Self.machines(fixture, gone)
        try await Self.detach(fixture, gone)
        try await fixture.pool.execute(
            "ALTER TABLE \(gone.state) RENAME TO put_away; ALTER TABLE \(gone.event) RENAME TO put_away_events")
        let results = await fixture.writeAll(machines)
        #expect(results[0].outcome?.isFenced == true)
        #expect(results[1].outcome?.isFenced == true)
        #expect(results[2].outcome?.isCommitted == true)
        #expect(try await fixture.count("SELECT count(*) FROM put_away WHERE version <> 1") == 0)
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 1)
        await fixture.close()
    }

    /// A detached leaf takes writes by its name, and the parent doesn't see them: nothing of the kind may be acknowledged.
    @Test func nothingIsWrittenToADetachedLeaf() async throws {
        let fixture = try await JournalFixture.make()
        let detached = Self.day(fixture, 2)
        let machines = await Self.machines(fixture, detached)
        try await Self.detach(fixture, detached)
        let results = await fixture.writeAll(machines + [fixture.machine(id: Self.id(detached))])
        for result in results.prefix(2) { #expect(result.outcome?.isCommitted != true) }
        #expect(results[2].outcome?.isCommitted == true)
        #expect(results[3].outcome?.isCommitted != true)
        #expect(try await fixture.count("SELECT count(*) FROM \(detached.state)") == 2)
        #expect(try await fixture.count("SELECT count(*) FROM \(detached.state) WHERE version <> 1") == 0)
        #expect(try await fixture.count("SELECT count(*) FROM \(detached.event)") == 2)
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 1)
        await fixture.close()
    }

    /// The keeper's next list has only what is attached under its own name and with its own day's bounds.
    @Test func onlyWholeDaysUnderTheirNamesAreListed() async throws {
        let fixture = try await JournalFixture.make()
        let today = Self.day(fixture).day ?? 0
        #expect(fixture.days.all() == Array(today - 1...today + 7))
        try await fixture.pool.execute(
            """
            ALTER TABLE saga_event DETACH PARTITION \(SagaLeaf(day: today + 3).event);
            ALTER TABLE \(SagaLeaf(day: today + 4).state) RENAME TO elsewhere;
            CREATE SCHEMA first;
            CREATE TABLE first.\(SagaLeaf(day: today + 5).state) (saga_id text);
            """)
        let conninfo = fixture.database.conninfo + " options='-c search_path=first,public'"
        let pool = PostgresPool(.engine(conninfo: conninfo), size: 1, maximumWaiters: 1)
        _ = try? await PartitionKeeper(pool: pool, days: fixture.days, clock: fixture.clock, logger: fixture.logger)
            .ensure()
        #expect(fixture.days.all() == [-1, 0, 1, 2, 6, 7].map { today + $0 })
        await pool.shutdown()
        await fixture.close()
    }

    @Test func readsGoOnWithoutALeafThatHasGone() async throws {
        let fixture = try await JournalFixture.make()
        let gone = Self.day(fixture, 2)
        let machines = await Self.machines(fixture, gone)
        let reader = SagaReader(
            pool: fixture.pool, days: fixture.days,
            plans: SagaPlans(pool: fixture.pool, definitions: SagaRegistry([JournalFixture.definition])))
        let ids = machines.map(\.snapshot.id)
        #expect(try await reader.snapshots(ids).found.count == 3)
        #expect(try await reader.outlines(ids).count == 3)
        try await Self.detach(fixture, gone)
        try await fixture.pool.execute(
            "ALTER TABLE \(gone.state) RENAME TO put_away; ALTER TABLE \(gone.event) RENAME TO put_away_events")
        #expect(Array(try await reader.snapshots(ids).found.keys) == [ids[2]])
        #expect(Array(try await reader.outlines(ids).keys) == [ids[2]])
        #expect(try await reader.snapshot(ids[0]) == nil)
        await fixture.close()
    }
}
