@testable import SagaRuntime
import TestSupport
import Testing

@Suite struct MigratorTests {
    private let first = Migration(version: 1, name: "first", sql: "CREATE TABLE a (n int); INSERT INTO a VALUES (1);")
    private let second = Migration(version: 2, name: "second", sql: "ALTER TABLE a ADD COLUMN m int")

    @Test func appliesInOrderAndOnlyOnce() async throws {
        let connection = try await TestDatabase.make().connect()
        #expect(try await Migrator(migrations: [self.second, self.first]).run(on: connection) == [1, 2])
        #expect(try await Migrator(migrations: [self.first, self.second]).run(on: connection) == [])
        let rows = try await connection.run(
            SQLQuery(
                SQLStatement(
                    "m", "SELECT version, name, applied_at <= clock_timestamp() FROM saga_migration ORDER BY 1")))
        #expect(try rows.map { try $0.text(1) } == ["first", "second"])
        #expect(self.first.title == "001_first")
    }

    @Test func failedMigrationLeavesNothingAndTheOthersStay() async throws {
        let connection = try await TestDatabase.make().connect()
        let bad = Migration(version: 2, name: "bad", sql: "CREATE TABLE b (n int); SELECT 1/0")
        let error = await #expect(throws: PostgresError.self) {
            try await Migrator(migrations: [self.first, bad]).run(on: connection)
        }
        #expect(error?.sqlstate == "22012")
        let query = SQLQuery(SQLStatement("b", "SELECT to_regclass('a') IS NOT NULL, to_regclass('b') IS NOT NULL"))
        let row = try await connection.run(query).single()
        #expect(try row.bool(0))
        #expect(try !row.bool(1))
        #expect(try await Migrator(migrations: [self.first, self.second]).run(on: connection) == [2])
    }

    @Test func manyAtOnceApplyEachOnce() async throws {
        let database = try await TestDatabase.make()
        let applied = try await withThrowingTaskGroup(of: [Int].self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let connection = try await database.connect()
                    return try await Migrator(migrations: [self.first, self.second]).run(on: connection)
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(applied.sorted() == [1, 2])
    }

    @Test func newerSchemaIsServedUnlessItSaysOtherwise() async throws {
        let connection = try await TestDatabase.make().connect()
        let expansion = Migration(version: 3, name: "expansion", sql: "SELECT 1")
        let contraction = Migration(version: 4, name: "contraction", excludesOlderPrograms: true, sql: "SELECT 1")
        let old = Migrator(migrations: [self.first, self.second])
        try await Migrator(migrations: [self.first, self.second, expansion]).run(on: connection)
        #expect(try await old.run(on: connection) == [])
        try await old.check(on: connection)
        try await Migrator(migrations: [self.first, self.second, expansion, contraction]).run(on: connection)
        await #expect(throws: Migrator.Failure.self) { try await old.run(on: connection) }
        await #expect(throws: Migrator.Failure.self) { try await old.check(on: connection) }
    }

    @Test func checkChangesNothing() async throws {
        let connection = try await TestDatabase.make().connect()
        await #expect(throws: Migrator.Failure.self) {
            try await Migrator(migrations: [self.first]).check(on: connection)
        }
        let query = SQLQuery(SQLStatement("t", "SELECT to_regclass('saga_migration') IS NULL"))
        #expect(try await connection.run(query).single().bool(0))
    }

    @Test func listsThatCannotBeAreRefused() async throws {
        let connection = try await TestDatabase.make().connect()
        let twin = Migration(version: 1, name: "twin", sql: "SELECT 1")
        let zero = Migration(version: 0, name: "zero", sql: "SELECT 1")
        await #expect(throws: Migrator.Failure.self) {
            try await Migrator(migrations: [self.first, twin]).run(on: connection)
        }
        await #expect(throws: Migrator.Failure.self) { try await Migrator(migrations: [zero]).run(on: connection) }
        try await Migrator(migrations: [self.first]).run(on: connection)
        await #expect(throws: Migrator.Failure.self) { try await Migrator(migrations: [twin]).run(on: connection) }
    }

    /// The database may be read-only, and the role without rights on the schema.
    @Test func nothingIsWrittenWhereNothingIsMissing() async throws {
        let database = try await TestDatabase.make(migrations: [self.first])
        let connection = try await database.connect()
        try await connection.execute("SET default_transaction_read_only = on")
        #expect(try await Migrator(migrations: [self.first]).run(on: connection) == [])
        let error = await #expect(throws: PostgresError.self) {
            try await Migrator(migrations: [self.first, self.second]).run(on: connection)
        }
        #expect(error?.sqlstate == "25006")
        #expect(error?.mayPass == true)
    }

    /// Whoever waits for a table's lock keeps all others from it: so it waits for a moment at a time.
    @Test func tableInUseIsWaitedFor() async throws {
        let database = try await TestDatabase.make(migrations: [self.first])
        let user = try await database.connect()
        try await user.execute("BEGIN; SELECT count(*) FROM a")
        async let applied = Migrator(migrations: [self.first, self.second]).run(on: database.connect())
        let connection = try await database.connect()
        let waiting = SQLQuery(
            SQLStatement("w", "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'a'::regclass"))
        while try await connection.run(waiting).single().int64(0) == 0 {}
        // Longer than it waits at once.
        while try await connection.run(waiting).single().int64(0) > 0 {}
        try await user.execute("COMMIT")
        #expect(try await applied == [2])
    }

    // MARK: Indexes

    private static let tables = """
        CREATE TABLE whole (n int, t text);
        CREATE TABLE parted (n int, t text) PARTITION BY RANGE (n);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
        CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
        INSERT INTO parted SELECT n, 'x' FROM generate_series(0, 19) AS n;
        INSERT INTO whole SELECT n, 'x' FROM generate_series(0, 19) AS n;
        """
    private static let indexes = [
        Migration(version: 1, name: "tables", sql: Self.tables),
        Migration(
            version: 2, name: "indexes",
            indexes: [
                Migration.Index("t", on: "whole", "(t COLLATE \"C\") WHERE n > 3"),
                Migration.Index("n", on: "whole", isUnique: true, "(n)"), Migration.Index("t", on: "parted", "(t, n)"),
            ]),
    ]

    /// Valid, the parent's too; partitions that come later have theirs.
    private func checkIndexes(_ connection: PostgresConnection) async throws {
        try await connection.execute("CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (20) TO (30)")
        let query = SQLQuery(
            SQLStatement(
                "i",
                """
                SELECT count(*), bool_and(i.indisvalid AND i.indisready) FROM pg_index i
                WHERE i.indrelid IN ('whole'::regclass, 'parted'::regclass, 'parted_1'::regclass, 'parted_2'::regclass,
                    'parted_3'::regclass)
                """))
        let row = try await connection.run(query).single()
        #expect(try row.int64(0) == 6)
        #expect(try row.bool(1))
    }

    @Test func indexesAreBuiltBesideWriters() async throws {
        let database = try await TestDatabase.make(migrations: [Self.indexes[0]])
        let connection = try await database.connect()
        let writer = try await database.connect()
        let run = Task { try await Migrator(migrations: Self.indexes).run(on: connection) }
        // One statement after the other, while it builds.
        var written = 0
        let insert = SQLQuery(SQLStatement("ins", "INSERT INTO parted VALUES (5, 'y')"))
        let recorded = SQLQuery(SQLStatement("rec", "SELECT count(*) FROM saga_migration"))
        while try await writer.run(recorded).single().int64(0) < 2 {
            _ = try await writer.run(insert)
            written += 1
        }
        #expect(try await run.value == [2])
        #expect(written > 0)
        try await self.checkIndexes(connection)
        #expect(try await Migrator(migrations: Self.indexes).run(on: connection) == [])
        let limits = SQLQuery(
            SQLStatement("lim", "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"))
        #expect(try await connection.run(limits).single().text(0) == "10s")
        #expect(try await connection.run(limits).single().text(1) == "5s")
    }

    /// Killed anywhere: with the parent's index made, a partition's half built (invalid) or built and not attached.
    @Test(arguments: 0..<4) func indexesAreFinishedAfterACrash(_ steps: Int) async throws {
        let connection = try await TestDatabase.make(migrations: [Self.indexes[0]]).connect()
        let left = [
            "CREATE INDEX parted_t ON ONLY parted (t, n)", "CREATE INDEX CONCURRENTLY parted_2_t ON parted_2 (t, n)",
            "ALTER INDEX parted_t ATTACH PARTITION parted_2_t",
            "CREATE INDEX CONCURRENTLY parted_1_t ON parted_1 (t, n)",
        ]
        for step in left.prefix(steps + 1) { try await connection.execute(step) }
        // A unique index over what isn't unique fails, and stays, invalid, as after a crash.
        try await connection.execute("INSERT INTO whole VALUES (1, 'x')")
        _ = try? await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY whole_n ON whole (n)")
        try await connection.execute("DELETE FROM whole WHERE n = 1")
        if steps == 3 {
            try await connection.execute(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'parted_1_t'::regclass")
        }
        #expect(try await Migrator(migrations: Self.indexes).run(on: connection) == [2])
        try await self.checkIndexes(connection)
    }

    @Test func manyAtOnceBuildIndexesOnce() async throws {
        let database = try await TestDatabase.make(migrations: [Self.indexes[0]])
        let applied = try await withThrowingTaskGroup(of: [Int].self) { group in
            for _ in 0..<4 {
                group.addTask {
                    try await Migrator(migrations: Self.indexes).run(on: try await database.connect())
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(applied == [2])
        try await self.checkIndexes(try await database.connect())
    }

    /// Rolling upgrades and their way back: the program before serves the database beside the new one.
    @Test func noMigrationFromThreeOnExcludesOlderPrograms() {
        for migration in SagaMigrations.all where migration.version >= 3 {
            #expect(!migration.excludesOlderPrograms, "\(migration.title)")
            guard case .script(let whole) = migration.change else { continue }
            // What a function may do once it is called is no part of the migration.
            let sql = whole.replacing(/AS \$(\w+)\$.*?\$\1\$/.dotMatchesNewlines(), with: "")
            for word in ["DROP TABLE", "DROP COLUMN", "RENAME", "SET NOT NULL", "DROP TYPE"] {
                #expect(!sql.contains(word), "\(migration.title): \(word)")
            }
            // Without an index an older program is slower; without a unique one it is wrong.
            for line in sql.split(separator: "\n") where line.contains("DROP INDEX") {
                for name in line.split(whereSeparator: { " ,;".contains($0) }).dropFirst(2) {
                    let isUnique = SagaMigrations.all.contains { other in
                        if case .script(let sql) = other.change { sql.contains("UNIQUE INDEX \(name)") } else { false }
                    }
                    #expect(!isUnique, "\(migration.title): \(name)")
                }
            }
            for line in sql.split(separator: "\n") where line.contains("ADD COLUMN") {
                #expect(!line.contains("NOT NULL") || line.contains("DEFAULT"), "\(migration.title): \(line)")
            }
        }
    }

    @Test func sagaTablesAreMade() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let connection = try await database.connect()
        let query = SQLQuery(SQLStatement("c", "SELECT count(*) FROM saga_state NATURAL JOIN saga_event"))
        #expect(try await connection.run(query).single().int64(0) == 0)
    }
}
