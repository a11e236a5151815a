/// Builds one index without keeping anybody from writing, in steps that can be repeated.
///
/// Of a partitioned table: first the parent's, which is invalid until each partition has its own (`ON ONLY`), then each
/// partition's by itself, `CONCURRENTLY`, and attached. Partitions made meanwhile come with theirs.
struct IndexBuilder {
    private let index: Migration.Index
    private let connection: PostgresConnection
    private let holder: PostgresConnection

    /// For one partition.
    private static let patience = Duration.seconds(6 * 3600)
    private static let lockPatience = Duration.seconds(300)

    /// - Parameter holder: has the migrations' lock for as long as it lives.
    init(_ index: Migration.Index, on connection: PostgresConnection, holder: PostgresConnection) {
        self.index = index
        self.connection = connection
        self.holder = holder
    }

    func run() async throws(PostgresError) {
        let schema = try await self.schema()
        // CONCURRENTLY waits for transactions that are older, by way of locks.
        try await self.connection.withoutTimeouts { _ async throws(PostgresError) in
            guard try await self.isPartitioned() else {
                return try await self.build(self.index.name, on: self.index.table, schema)
            }
            try await self.briefly(
                "CREATE INDEX IF NOT EXISTS \(self.index.name) ON ONLY \(self.index.table) \(self.index.definition)")
            while let leaf = try await self.leafWithout() {
                let name = "\(leaf)_\(self.index.suffix)"
                try await self.build(name, on: leaf, schema)
                try await self.briefly("ALTER INDEX \(self.index.name) ATTACH PARTITION \(name)")
            }
        }
    }

    /// - Parameter schema: with a dot, since `CONCURRENTLY` allows no transaction that could set the search path.
    private func build(_ name: String, on table: String, _ schema: String) async throws(PostgresError) {
        // Whoever has lost the lock must not go on.
        try await self.holder.execute("SELECT 1")
        var parameters = SQLParameters()
        parameters.append(schema + name)
        if let row = try await self.connection.run(SQLQuery(Self.state, parameters)).first {
            if try row.bool(0) { return }
            // What a crash left, since we have the lock.
            try await self.connection.execute(
                "DROP INDEX CONCURRENTLY IF EXISTS \(schema)\(name)", timeout: Self.patience)
        }
        try await self.connection.execute(
            "CREATE \(self.index.isUnique ? "UNIQUE " : "")INDEX CONCURRENTLY \(name) ON \(schema)\(table) "
                + self.index.definition, timeout: Self.patience)
    }

    /// Runs what excludes the table's users for a moment, and waits for that moment without keeping them waiting for long.
    private func briefly(_ sql: String) async throws(PostgresError) {
        let deadline = BootTime.now + Self.lockPatience
        while true {
            do throws(PostgresError) {
                return try await self.connection.execute(
                    "BEGIN; \(self.connection.localSettings) SET LOCAL lock_timeout = '2s'; \(sql); COMMIT")
            } catch  where error.isSerialization && BootTime.now < deadline && !Task.isCancelled {
                try? await Task.sleep(for: .milliseconds(100))
            }
        }
    }

    private static let state = SQLStatement(
        "index_state", "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)")
    private static let partitioned = SQLStatement(
        "index_partitioned", "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass($1)")
    private static let leaves = SQLStatement(
        "index_leaves",
        """
        SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass($1) AND NOT i.inhdetachpending AND NOT EXISTS (
            SELECT 1 FROM pg_inherits p JOIN pg_index x ON x.indexrelid = p.inhrelid
            WHERE p.inhparent = to_regclass($2) AND x.indrelid = c.oid)
        ORDER BY c.relname DESC LIMIT 1
        """)

    private static let schemaName = SQLStatement(
        "index_schema",
        """
        SELECT quote_ident(n.nspname) || '.' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass($1)
        """)

    private func schema() async throws(PostgresError) -> String {
        var parameters = SQLParameters()
        parameters.append(self.index.table)
        return try await self.connection.run(SQLQuery(Self.schemaName, parameters)).single().text(0)
    }

    private func isPartitioned() async throws(PostgresError) -> Bool {
        var parameters = SQLParameters()
        parameters.append(self.index.table)
        return try await self.connection.run(SQLQuery(Self.partitioned, parameters)).single().bool(0)
    }

    /// A partition whose index isn't the parent's yet, the newest first.
    private func leafWithout() async throws(PostgresError) -> String? {
        var parameters = SQLParameters()
        parameters.append(self.index.table)
        parameters.append(self.index.name)
        return try await self.connection.run(SQLQuery(Self.leaves, parameters)).first?.text(0)
    }
}
