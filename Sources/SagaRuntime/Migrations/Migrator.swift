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
    private static let record = "INSERT INTO saga_migration (version, name, excludes_older) VALUES"

    /// "devicerp" in ASCII: a number that no other program locks in this database.
    private static let lockKey: Int64 = 0x6465_7669_6365_7270
    /// SQLSTATEs of our own, of a class that neither the standard nor PostgreSQL uses.
    private static let (isLocked, isApplied) = ("DR001", "DR002")
    private static let lockPatience = Duration.seconds(300)
    private static let migrationTimeout = Duration.seconds(3600)

    /// Applies what is missing, each migration in a transaction of its own, under a lock that keeps others out.
    ///
    /// - Returns: the versions that were applied now.
    /// - Throws: `PostgresError`, or `Failure` if this program can't serve the database.
    @discardableResult
    public func run(on connection: PostgresConnection) async throws -> [Int] {
        try self.validate()
        try await self.locked(Self.createTable, on: connection)
        let applied = try await self.appliedVersions(connection)
        var result: [Int] = []
        for migration in self.migrations where !applied.contains(migration.version) {
            if try await self.apply(migration, connection) { result.append(migration.version) }
        }
        return result
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

    /// Runs a script as one transaction that keeps others out. The lock is the transaction's, not the session's, which a
    /// pooler may give to somebody else.
    ///
    /// Asks for it again and again rather than wait in the server, where a waiting statement holds a snapshot.
    private func locked(_ sql: String, on connection: PostgresConnection) async throws {
        let deadline = BootTime.now + Self.lockPatience
        while true {
            do throws(PostgresError) {
                try await connection.execute(
                    """
                    BEGIN;
                    SET LOCAL statement_timeout = 0;
                    DO $lock$ BEGIN
                        IF NOT pg_try_advisory_xact_lock(\(Self.lockKey)) THEN
                            RAISE SQLSTATE '\(Self.isLocked)' USING MESSAGE = 'another process migrates the database';
                        END IF;
                    END $lock$;
                    \(sql)
                    ;
                    COMMIT
                    """, timeout: Self.migrationTimeout)
                return
            } catch {
                guard error.sqlstate == Self.isLocked else { throw error }
                guard BootTime.now < deadline else {
                    throw Failure(description: "another process has been migrating the database for five minutes")
                }
            }
            try await Task.sleep(for: .milliseconds(50))
        }
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

    /// - Returns: false if another process has applied it meanwhile.
    private func apply(_ migration: Migration, _ connection: PostgresConnection) async throws -> Bool {
        // The name is the program's own; quoted all the same.
        let name = migration.name.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''")
        do {
            try await self.locked(
                """
                DO $applied$ BEGIN
                    IF EXISTS (SELECT 1 FROM saga_migration WHERE version = \(migration.version)) THEN
                        RAISE SQLSTATE '\(Self.isApplied)' USING MESSAGE = 'applied already';
                    END IF;
                END $applied$;
                \(migration.sql)
                ;
                \(Self.record) (\(migration.version), '\(name)', \(migration.excludesOlderPrograms))
                """, on: connection)
            return true
        } catch let error as PostgresError where error.sqlstate == Self.isApplied {
            return false
        }
    }
}
