import SagaRuntime
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

    @Test func sagaTablesAreMade() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let connection = try await database.connect()
        let query = SQLQuery(SQLStatement("c", "SELECT count(*) FROM saga_state NATURAL JOIN saga_event"))
        #expect(try await connection.run(query).single().int64(0) == 0)
    }
}
