/// Brings a database's schema up to what this program needs. Any number of processes may do so at once.
public struct Migrator: Sendable {
    /// What is wrong other than in the database's own words.
    public struct Failure: Error, Sendable, CustomStringConvertible {
        public var description: String
    }

    private let migrations: [Migration]

    /// - Parameter migrations: of all modules, in any order, with unique versions.
    public init(migrations: [Migration]) {
        self.migrations = migrations.sorted { $0.version < $1.version }
    }

    /// The version that a database has once all are applied; 0 without any.
    public var newestVersion: Int { self.migrations.last?.version ?? 0 }

    private static let createTable = """
        CREATE TABLE IF NOT EXISTS saga_migration (
            version int PRIMARY KEY CHECK (version > 0),
            name text NOT NULL,
            excludes_older boolean NOT NULL,  -- programs that don't know this migration can't serve
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )
        """
    private static let table = SQLStatement("migration_table", "SELECT to_regclass('saga_migration') IS NOT NULL")
    private static let applied = SQLStatement(
        "migration_applied", "SELECT version, name, excludes_older FROM saga_migration ORDER BY version")
    private static let tryLock = SQLStatement("migration_try_lock", "SELECT pg_try_advisory_lock($1)")
    private static let record = "INSERT INTO saga_migration (version, name, excludes_older) VALUES"

    /// "devicerp" in ASCII: a number that no other program locks in this database.
    private static let lockKey: Int64 = 0x6465_7669_6365_7270
    private static let lockPatience = Duration.seconds(300)
    private static let migrationTimeout = Duration.seconds(3600)

    /// Applies what is missing, each migration in a transaction of its own, under a lock that keeps others out.
    ///
    /// - Returns: the versions that were applied now.
    /// - Throws: `PostgresError`, or `Failure` if this program can't serve the database.
    @discardableResult
    public func run(on connection: PostgresConnection) async throws -> [Int] {
        try self.validate()
        try await self.lock(connection)
        do {
            let result = try await self.runLocked(connection)
            try await connection.execute("SELECT pg_advisory_unlock(\(Self.lockKey))")
            return result
        } catch {
            // The session's end would unlock too; an error here is not the one to report.
            try? await connection.execute("SELECT pg_advisory_unlock(\(Self.lockKey))")
            throw error
        }
    }

    /// Checks, without changing anything, that this program can serve the database as it is.
    ///
    /// - Throws: `PostgresError`, or `Failure` if a migration is missing or the schema is newer than this program.
    public func check(on connection: PostgresConnection) async throws {
        try self.validate()
        let exists = try await connection.run(SQLQuery(Self.table)).single().bool(0)
        let applied = exists ? try await self.appliedVersions(connection) : []
        let missing = self.migrations.filter { !applied.contains($0.version) }.map(\.title)
        guard missing.isEmpty else {
            throw Failure(description: "the database lacks \(missing.joined(separator: ", ")): run `devicerpc migrate`")
        }
    }

    private func validate() throws(Failure) {
        for (earlier, later) in zip(self.migrations, self.migrations.dropFirst()) where earlier.version == later.version
        {
            throw Failure(description: "two migrations have one number: \(earlier.title), \(later.title)")
        }
        if let first = self.migrations.first, first.version < 1 {
            throw Failure(description: "migration \(first.title): numbers start at 1")
        }
    }

    /// Asks again and again rather than wait in the server, where a waiting statement runs into its time-out and holds
    /// a snapshot.
    private func lock(_ connection: PostgresConnection) async throws {
        let deadline = BootTime.now + Self.lockPatience
        var parameters = SQLParameters()
        parameters.append(Self.lockKey)
        while try await !connection.run(SQLQuery(Self.tryLock, parameters)).single().bool(0) {
            guard BootTime.now < deadline else {
                throw Failure(description: "another process has been migrating the database for five minutes")
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    private func runLocked(_ connection: PostgresConnection) async throws -> [Int] {
        try await connection.execute(Self.createTable)
        let applied = try await self.appliedVersions(connection)
        var result: [Int] = []
        for migration in self.migrations where !applied.contains(migration.version) {
            try await self.apply(migration, connection)
            result.append(migration.version)
        }
        return result
    }

    private func appliedVersions(_ connection: PostgresConnection) async throws -> Set<Int> {
        var result: Set<Int> = []
        for row in try await connection.run(SQLQuery(Self.applied)) {
            let version = Int(try row.int32(0))
            let name = try row.text(1)
            if let ours = self.migrations.first(where: { $0.version == version }) {
                guard ours.name == name else {
                    throw Failure(description: "migration \(version) is \(name) in the database and \(ours.name) here")
                }
            } else if try row.bool(2) {
                throw Failure(
                    description: "the database's schema is newer than this program: it needs one that knows migration "
                        + "\(version), \(name)")
            }
            result.insert(version)
        }
        return result
    }

    private func apply(_ migration: Migration, _ connection: PostgresConnection) async throws {
        // The name is the program's own; quoted all the same.
        let name = migration.name.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''")
        try await connection.execute(
            """
            BEGIN;
            SET LOCAL statement_timeout = 0;
            \(migration.sql)
            ;
            \(Self.record) (\(migration.version), '\(name)', \(migration.excludesOlderPrograms));
            COMMIT
            """, timeout: Self.migrationTimeout)
    }
}
