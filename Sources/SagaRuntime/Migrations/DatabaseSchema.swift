/// In which schema of the database our tables are.
///
/// The session's `search_path` isn't enough to go by: a default that somebody sets for the role or the database later must
/// not lead to a second, empty set of tables.
public enum DatabaseSchema {
    private static let look = SQLStatement(
        "database_schema",
        """
        SELECT (SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = to_regclass('saga_migration')),
            current_schema()::text,
            (SELECT source = 'client' FROM pg_settings WHERE name = 'search_path'),
            ARRAY(SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relname = 'saga_migration' AND c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1)
        """)

    /// The `search_path` that all sessions are to have.
    ///
    /// - Throws: `Migrator.Failure` if it can't be told which of several schemas is meant; `PostgresError`.
    public static func searchPath(on connection: PostgresConnection) async throws -> String {
        let row = try await connection.run(SQLQuery(Self.look)).single()
        let schema = try Self.choose(
            found: try row.optionalText(0), current: try row.optionalText(1), isOwnWish: try row.bool(2),
            all: try row.textArray(3))
        let quoted = schema.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"")
        // Nothing after it: where this role may not use the schema, tables would be made there instead.
        return "\"\(quoted)\""
    }

    /// - Parameters:
    ///   - found: the schema of the tables that the session's search path leads to.
    ///   - current: where the session makes new tables; nil if its search path names no schema that exists.
    ///   - isOwnWish: the search path comes from the connection string (`options=-csearch_path=…`).
    ///   - all: every schema that has our tables.
    static func choose(
        found: String?, current: String?, isOwnWish: Bool, all: [String]
    ) throws(Migrator.Failure) -> String {
        if let found { return found }
        if !isOwnWish {
            if all.count == 1 { return all[0] }
            if all.count > 1 {
                throw Migrator.Failure(
                    description: "the schemas \(all.joined(separator: ", ")) all have tables of ours: say which one is "
                        + "meant in DATABASE_URL (options=-csearch_path%3D…)")
            }
        }
        return current ?? "public"
    }
}
