import Logging
@testable import SagaRuntime
import TestSupport
import Testing

@Suite struct PartitionKeeperTests {
    private struct Fixture {
        var database: TestDatabase
        var connection: PostgresConnection
        var pool: PostgresPool
        var clock = DatabaseClock()
        let days = SagaDays()

        var keeper: PartitionKeeper {
            PartitionKeeper(pool: self.pool, days: self.days, clock: self.clock, logger: Logger(label: "test"))
        }

        /// Makes the database's clock read `time`.
        func set(_ time: Timestamp) {
            let now = BootTime.now
            self.clock.learn(time, sent: now, received: now)
        }

        func partitions(of table: String) async throws -> [String] {
            var parameters = SQLParameters()
            parameters.append(table)
            let statement = SQLStatement(
                "partitions",
                """
                SELECT c.relname, pg_get_expr(c.relpartbound, c.oid),
                    (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid AND conname LIKE '%_range'), c.reloptions
                FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1) ORDER BY 1
                """)
            return try await self.connection.run(SQLQuery(statement, parameters)).map { row in
                #expect(try row.int64(2) == 0)
                #expect(try row.optionalTextArray(3) != nil)
                return "\(try row.text(0)) \(try row.text(1))"
            }
        }

        func insertEvent(_ id: String) async throws {
            var parameters = SQLParameters()
            parameters.append(id)
            let statement = SQLStatement(
                "event", "INSERT INTO saga_event (saga_id, sequence, events) VALUES ($1, 1, '')")
            _ = try await self.connection.run(SQLQuery(statement, parameters))
        }
    }

    private func makeFixture(lockTimeout: Duration? = nil) async throws -> Fixture {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        var configuration = database.configuration
        if let lockTimeout { configuration.lockTimeout = lockTimeout }
        return Fixture(
            database: database, connection: try await database.connect(),
            pool: PostgresPool(configuration, size: 2, maximumWaiters: 10))
    }

    /// 2026-12-31T23:59:59.900Z
    private let newYearsEve = Timestamp(milliseconds: 1_798_761_599_900)

    @Test(arguments: [
        (0 as Int64, "19700101"), (11_016, "20000229"), (20_780, "20261123"), (20_818, "20261231"),
        (20_819, "20270101"),
        (21_243, "20280229"), (-1, "19691231"),
    ])
    func daysHaveTheirDates(day: Int64, name: String) {
        #expect(PartitionKeeper.name(of: day) == name)
    }

    @Test func yesterdayTodayAndAWeekAheadAreMade() async throws {
        let fixture = try await self.makeFixture()
        fixture.set(self.newYearsEve + .seconds(-3600))
        let keeper = fixture.keeper
        #expect(keeper.daysAhead < 1)
        try await keeper.ensure()
        #expect(keeper.daysAhead == 7)
        for table in ["saga_state", "saga_event"] {
            let partitions = try await fixture.partitions(of: table)
            #expect(partitions.count == 9)
            #expect(partitions.first?.hasPrefix("\(table)_20261230 ") == true)
            #expect(
                partitions[1] == "\(table)_20261231 FOR VALUES FROM ('saga_1798675200000') TO ('saga_1798761600000')")
            #expect(partitions.last?.hasPrefix("\(table)_20270107 ") == true)
        }
        // Twice is once.
        try await keeper.ensure()
        #expect(try await fixture.partitions(of: "saga_event").count == 9)
    }

    @Test func sagasOnBothSidesOfMidnightFindTheirPartition() async throws {
        let fixture = try await self.makeFixture()
        fixture.set(self.newYearsEve + .seconds(-60))
        let keeper = fixture.keeper
        try await keeper.ensure()
        try await fixture.insertEvent("saga_1798761599999_zzzzzzzzzz")
        try await fixture.insertEvent("saga_1798761600000_0000000000")
        let query = SQLQuery(
            SQLStatement("where", "SELECT tableoid::regclass::text FROM saga_event ORDER BY saga_id"))
        let tables = try await fixture.connection.run(query).map { try $0.text(0) }
        #expect(tables == ["saga_event_20261231", "saga_event_20270101"])
        // A day later one more is made, and none is lost.
        fixture.set(self.newYearsEve + .seconds(1))
        #expect(keeper.daysAhead == 6)
        try await keeper.ensure()
        #expect(keeper.daysAhead == 7)
        #expect(try await fixture.partitions(of: "saga_event").count == 10)
    }

    @Test func idWithoutAPartitionIsRefused() async throws {
        let fixture = try await self.makeFixture()
        fixture.set(self.newYearsEve)
        try await fixture.keeper.ensure()
        let error = await #expect(throws: PostgresError.self) {
            try await fixture.insertEvent("saga_1000000000000_0000000000")
        }
        #expect(error?.sqlstate == "23514")
    }

    @Test func replicasMakeThemTogether() async throws {
        let fixture = try await self.makeFixture()
        fixture.set(self.newYearsEve + .seconds(-3600))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 { group.addTask { try await fixture.keeper.ensure() } }
            try await group.waitForAll()
        }
        #expect(try await fixture.partitions(of: "saga_state").count == 9)
    }

    /// A day that is over is passed by, until something on it isn't over after all.
    @Test func dayWithoutOpenSagasIsPassedBy() async throws {
        let fixture = try await self.makeFixture(lockTimeout: .milliseconds(200))
        fixture.set(self.newYearsEve + .seconds(-3600))
        let keeper = fixture.keeper
        let today: Int64 = 20_818
        for (day, status) in [(today - 40, "COMPLETED"), (today - 30, "PARKED"), (today - 20, "RUNNING")] {
            try await fixture.connection.execute(
                """
                SELECT saga_partition_make('saga_state', \(day)), saga_partition_make('saga_event', \(day));
                INSERT INTO saga_state (saga_id, status, step_index, version, last_sequence, owner, timeout_at, started_at,
                    created_at, updated_at, completed_at, definition_version, saga_type, current_step)
                SELECT '\(PartitionKeeper.bound(day))_0000000000', s.status::saga_status, 0, 1, 1, 0, now(), now(), now(), now(),
                    CASE WHEN s.status = 'COMPLETED' THEN now() END, 1, 'T', 'A'
                FROM (SELECT '\(status)') AS s(status)
                """)
        }
        try await keeper.ensure()
        #expect(fixture.days.open() == [.parent])
        await keeper.lookForOpenDays()
        // Of the days around today nobody knows what will be inserted.
        let around = [today - 1, today, today + 1]
        #expect(fixture.days.open().compactMap(\.day) == [today - 30, today - 20] + around)
        try await fixture.connection.execute(
            """
            UPDATE saga_state SET status = 'COMPENSATED', completed_at = now() WHERE status = 'RUNNING';
            UPDATE saga_state SET status = 'RUNNING', completed_at = NULL WHERE status = 'COMPLETED'
            """)
        await keeper.lookForOpenDays()
        try await keeper.ensure()
        #expect(fixture.days.open().compactMap(\.day) == [today - 40, today - 30] + around)
        // A table that somebody has locked stays open, and so do those that were asked about with it.
        try await fixture.connection.execute(
            "BEGIN; LOCK TABLE saga_state_\(PartitionKeeper.name(of: today - 20)) IN ACCESS EXCLUSIVE MODE")
        await keeper.lookForOpenDays()
        try await fixture.connection.execute("ROLLBACK")
        try await keeper.ensure()
        #expect(fixture.days.open().compactMap(\.day).contains(today - 20))
        await keeper.lookForOpenDays()
        try await keeper.ensure()
        #expect(!fixture.days.open().compactMap(\.day).contains(today - 20))
        // The database's clock was wrong: what was the future is today.
        fixture.set(self.newYearsEve + .seconds(-20 * 86_400 - 3600))
        try await keeper.ensure()
        #expect(fixture.days.open().compactMap(\.day).contains(today - 20))
    }

    /// Somebody detached a partition: it is not dropped with all that it holds, and the lack of it is not overlooked.
    @Test func detachedPartitionIsNotDropped() async throws {
        let fixture = try await self.makeFixture()
        fixture.set(self.newYearsEve + .seconds(-60))
        let keeper = fixture.keeper
        try await keeper.ensure()
        try await fixture.insertEvent("saga_1798761599999_zzzzzzzzzz")
        try await fixture.connection.execute("ALTER TABLE saga_event DETACH PARTITION saga_event_20261231")
        let error = await #expect(throws: PostgresError.self) { try await keeper.ensure() }
        #expect(error?.sqlstate == "42P07")
        #expect(keeper.daysAhead < 1)
        let query = SQLQuery(SQLStatement("kept", "SELECT count(*) FROM saga_event_20261231"))
        #expect(try await fixture.connection.run(query).single().int64(0) == 1)
        try await fixture.connection.execute(
            """
            ALTER TABLE saga_event ATTACH PARTITION saga_event_20261231
                FOR VALUES FROM ('saga_1798675200000') TO ('saga_1798761600000')
            """)
        try await keeper.ensure()
        #expect(keeper.daysAhead == 7)
        // Yesterday's may be put away: new sagas have their days.
        try await fixture.connection.execute("ALTER TABLE saga_event DETACH PARTITION saga_event_20261230")
        fixture.set(self.newYearsEve + .seconds(-30))
        _ = await #expect(throws: PostgresError.self) { try await keeper.ensure() }
        #expect(keeper.daysAhead == 7)
    }

    @Test func lockedTableIsNotWaitedForForever() async throws {
        let fixture = try await self.makeFixture()
        fixture.set(self.newYearsEve + .seconds(-3600))
        try await fixture.connection.execute("BEGIN; LOCK TABLE saga_state IN ACCESS EXCLUSIVE MODE")
        let keeper = fixture.keeper
        let error = await #expect(throws: PostgresError.self) { try await keeper.ensure() }
        #expect(error?.isSerialization == true)
        #expect(keeper.daysAhead < 1)
        try await fixture.connection.execute("ROLLBACK")
        try await keeper.ensure()
        #expect(keeper.daysAhead == 7)
    }
}
