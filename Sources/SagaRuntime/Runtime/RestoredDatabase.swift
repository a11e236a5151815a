/// Whether a database may be an older state of one, or a copy, whose sagas others went on with: then what is left in it says little
/// about what there is at the providers, and taking its sagas up would undo what others rely on.
///
/// What was found is kept in `saga_setting`, for all replicas, until an operator says otherwise (docs/database.md, "Restored").
public struct RestoredDatabase: Sendable {
    private let pool: PostgresPool

    public init(pool: PostgresPool) { self.pool = pool }

    private static func facts(_ identifier: String) -> SQLStatement {
        SQLStatement(
            "",
            """
            SELECT (SELECT convert_from(value, 'UTF8') FROM saga_setting WHERE name = 'adoption-held'),
                (SELECT convert_from(value, 'UTF8') FROM saga_setting WHERE name = 'system-identifier'),
                \(identifier),
                (SELECT extract(epoch FROM saga_now() - max(lease_until))::bigint FROM saga_instance),
                EXISTS (SELECT 1 FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING'))
            """)
    }
    private static let identifier = "(SELECT system_identifier::text FROM pg_control_system())"
    private static let held = SQLStatement(
        "",
        "INSERT INTO saga_setting VALUES ('adoption-held', convert_to($1, 'UTF8')) ON CONFLICT (name) DO NOTHING")
    private static let known = SQLStatement(
        "",
        """
        INSERT INTO saga_setting VALUES ('system-identifier', convert_to($1, 'UTF8'))
        ON CONFLICT (name) DO UPDATE SET value = excluded.value
        """)
    private static let free = SQLStatement("", "DELETE FROM saga_setting WHERE name = 'adoption-held' RETURNING 1")
    private static let reason = SQLStatement(
        "saga_adoption_held", "SELECT convert_from(value, 'UTF8') FROM saga_setting WHERE name = 'adoption-held'")

    private func facts() async throws(PostgresError) -> SQLRow {
        do throws(PostgresError) {
            return try await self.pool.run(SQLQuery(Self.facts(Self.identifier))).single()
        } catch {
            // A role that was denied this function knows the leases alone.
            guard error.code == .server, error.sqlstate == "42501" else { throw error }
            return try await self.pool.run(SQLQuery(Self.facts("NULL::text"))).single()
        }
    }

    /// Looks once, before this process has a lease of its own.
    ///
    /// - Parameter age: for how long nobody may have renewed a lease; zero: for any time.
    /// - Returns: why nothing is to be taken up; `nil`: nothing speaks against it.
    public func check(suspectAfter age: Duration) async throws(PostgresError) -> String? {
        let facts = try await self.facts()
        if let reason = try facts.optionalText(0) { return reason }
        let (known, identifier) = (try facts.optionalText(1), try facts.optionalText(2))
        let silence = try facts.optionalInt64(3).map { Duration.seconds($0) } ?? .zero
        if try facts.bool(4) {
            var reason: String?
            if let known, let identifier, known != identifier {
                reason =
                    "the database is of another cluster than before (system identifier \(identifier), not \(known))"
            } else if age > .zero, silence > age {
                reason = "no replica renewed a lease here for \(silence.components.seconds / 60) minutes"
            }
            if let reason {
                try await self.write(Self.held, reason)
                return reason
            }
        }
        if let identifier, identifier != known { try await self.write(Self.known, identifier) }
        return nil
    }

    /// Why nothing is to be taken up, as it stands; `nil`: nothing speaks against it any more.
    public func heldReason() async throws(PostgresError) -> String? {
        try await self.pool.run(SQLQuery(Self.reason)).first?.text(0)
    }

    /// Says that this database is the one to go on with.
    ///
    /// - Returns: whether anything was held.
    public func accept() async throws(PostgresError) -> Bool {
        if let identifier = try await self.facts().optionalText(2) { try await self.write(Self.known, identifier) }
        return try await !self.pool.run(SQLQuery(Self.free)).isEmpty
    }

    private func write(_ statement: SQLStatement, _ value: String) async throws(PostgresError) {
        var parameters = SQLParameters()
        parameters.append(value)
        _ = try await self.pool.run(SQLQuery(statement, parameters))
    }
}
