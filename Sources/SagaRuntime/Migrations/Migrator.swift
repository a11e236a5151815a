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

    /// "devicerp" in ASCII: a number that no other program locks in this database.
    private static let lockKey: Int64 = 0x6465_7669_6365_7270
    /// SQLSTATEs of our own, of a class that neither the standard nor PostgreSQL uses.
    private static let (isLocked, isApplied) = ("DR001", "DR002")
    private static let lockPatience = Duration.seconds(300)
    private static let migrationTimeout = Duration.seconds(3600)

    /// Applies what is missing, each migration in a transaction of its own (but for indexes), under a lock that keeps others
    /// out. Where nothing is missing nothing is written: the database may be read-only, and this role may have no rights on
    /// its schema.
    ///
    /// - Returns: the versions that were applied now.
    /// - Throws: `PostgresError`, or `Failure` if this program can't serve the database.
    @discardableResult
    public func run(on connection: PostgresConnection) async throws -> [Int] {
        try self.validate()
        let applied = try await self.appliedVersions(connection)
        let missing = self.migrations.filter { applied?.contains($0.version) != true }
        if missing.isEmpty { return [] }
        do {
            if applied == nil { try await self.locked(Self.createTable, on: connection) }
            var result: [Int] = []
            for migration in missing where try await self.apply(migration, connection) {
                result.append(migration.version)
            }
            return result
        } catch let error as PostgresError where error.sqlstate == "42501" || error.sqlstate == "3F000" {
            // insufficient_privilege; invalid_schema_name: none of the search path that this role may use.
            throw Failure(
                description: "this role may not change the schema (\(error.message)): the database lacks "
                    + "\(Self.titles(missing)); run `devicerpc migrate` as the tables' owner (docs/database.md)")
        }
    }

    /// Checks, without changing anything, that this program can serve the database as it is.
    ///
    /// - Throws: `PostgresError`, or `Failure` if a migration is missing or the schema is newer than this program.
    public func check(on connection: PostgresConnection) async throws {
        try self.validate()
        let applied = try await self.appliedVersions(connection)
        let missing = self.migrations.filter { applied?.contains($0.version) != true }
        guard missing.isEmpty else {
            throw Failure(description: "the database lacks \(Self.titles(missing)): run `devicerpc migrate`")
        }
    }

    private static func titles(_ migrations: [Migration]) -> String {
        migrations.map(\.title).joined(separator: ", ")
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
        try await self.takingTurns {
            try await connection.execute("\(self.begin(connection)); \(sql)\n; COMMIT", timeout: Self.migrationTimeout)
        }
    }

    /// Begins a transaction that holds the lock.
    private func begin(_ connection: PostgresConnection) -> String {
        """
        BEGIN ISOLATION LEVEL READ COMMITTED;
        \(connection.localSettings)
        SET LOCAL statement_timeout = 0;
        SET LOCAL idle_in_transaction_session_timeout = 0;
        SET LOCAL lock_timeout = '\(Self.tableLockTimeout)';
        DO $lock$ BEGIN
            IF NOT pg_try_advisory_xact_lock(\(Self.lockKey)) THEN
                RAISE SQLSTATE '\(Self.isLocked)' USING MESSAGE = 'another process migrates the database';
            END IF;
        END $lock$
        """
    }

    /// Tries until nobody is in the way: another process that migrates, or a table's users (whoever waits for a table's lock
    /// keeps all others from it, and so waits for a moment only).
    private func takingTurns(_ body: () async throws -> Void) async throws {
        let deadline = BootTime.now + Self.lockPatience
        while true {
            do {
                return try await body()
            } catch let error as PostgresError {
                let isLocked = error.sqlstate == Self.isLocked
                guard isLocked || error.isSerialization else { throw error }
                guard BootTime.now < deadline else {
                    guard isLocked else { throw error }
                    throw Failure(description: "another process has been migrating the database for five minutes")
                }
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    private static let tableLockTimeout = "2s"

    /// - Returns: nil if nothing was ever applied.
    private func appliedVersions(_ connection: PostgresConnection) async throws -> Set<Int>? {
        guard try await connection.run(SQLQuery(Self.table)).single().bool(0) else { return nil }
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
        do {
            switch migration.change {
            case .script(let sql):
                let script = "\(Self.unlessApplied(migration)); \(sql)\n; \(Self.record(migration))"
                try await self.locked(script, on: connection)
            case .indexes(let indexes):
                try await self.build(indexes, of: migration, connection)
            }
            return true
        } catch let error as PostgresError where error.sqlstate == Self.isApplied {
            return false
        }
    }

    private static func unlessApplied(_ migration: Migration) -> String {
        """
        DO $applied$ BEGIN
            IF EXISTS (SELECT 1 FROM saga_migration WHERE version = \(migration.version)) THEN
                RAISE SQLSTATE '\(Self.isApplied)' USING MESSAGE = 'applied already';
            END IF;
        END $applied$
        """
    }

    private static func record(_ migration: Migration) -> String {
        // The name is the program's own; quoted all the same.
        let name = migration.name.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''")
        return """
            INSERT INTO saga_migration (version, name, excludes_older)
            VALUES (\(migration.version), '\(name)', \(migration.excludesOlderPrograms))
            """
    }

    // MARK: Indexes

    /// Builds what of the indexes is missing. The lock is held by a second connection's transaction, which reads nothing and
    /// so keeps no index waiting.
    private func build(
        _ indexes: [Migration.Index], of migration: Migration, _ connection: PostgresConnection
    ) async throws {
        let holder = try await connection.another()
        do {
            try await self.takingTurns {
                try await holder.execute("\(self.begin(holder)); \(Self.unlessApplied(migration))")
            }
            for index in indexes { try await IndexBuilder(index, on: connection, holder: holder).run() }
            try await holder.execute("\(Self.record(migration)); COMMIT")
            await holder.close()
        } catch {
            await holder.close()
            throw error
        }
    }
}
