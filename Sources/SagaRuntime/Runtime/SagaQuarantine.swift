/// Sagas that nobody drives, as the table saga_quarantine tells (docs/architecture.md, "Rows that can't be read").
///
/// A quarantined saga belongs to nobody (owner 0). One that is parked may be in quarantine while it has a command. Each process tries it once, so that a newer one goes on with it by
/// itself; an operator who has mended its rows gives it a command, and whoever comes first takes it.
struct SagaQuarantine: Sendable {
    enum Reason: String, Sendable {
        /// Its rows don't decode: damaged, or written by a newer program.
        case unreadable = "UNREADABLE"
        /// The database refuses its records.
        case refused = "REFUSED"
        /// Servers that took it up were killed before they could even park it.
        case unread = "UNREAD"
    }

    let pool: PostgresPool

    private static let record = SQLStatement(
        "saga_quarantine_record",
        """
        WITH given AS (
            UPDATE saga_state s
            SET owner = 0, version = s.version + 2,
                unsent_version = CASE WHEN s.unsent_version = s.version THEN s.version + 2 END
            FROM unnest($2::text[], $3::text[]) AS q(saga_id, reason)
            WHERE s.saga_id = q.saga_id AND s.owner = $1 AND s.status IN ('RUNNING', 'COMPENSATING', 'PARKED')
            RETURNING s.saga_id, q.reason
        )
        INSERT INTO saga_quarantine (saga_id, quarantined_at, instance_id, reason)
        SELECT saga_id, saga_now(), $1, reason FROM given
        ON CONFLICT (saga_id) DO UPDATE SET instance_id = excluded.instance_id, reason = excluded.reason
        """)

    /// Makes it visible, and lets go of the rows that are still `owner`'s. What was unsent when they were given back still is:
    /// nobody who can't read or write them has called anyone.
    func record(_ reasons: [SagaID: Reason], owner: Int64) async throws(PostgresError) {
        if reasons.isEmpty { return }
        let sorted = reasons.sorted { $0.key < $1.key }
        var parameters = SQLParameters()
        parameters.append(owner)
        parameters.append(array: sorted.map(\.key.rawValue))
        parameters.append(array: sorted.map(\.value.rawValue))
        _ = try await self.pool.run(SQLQuery(Self.record, parameters))
    }

    private static let end = SQLStatement(
        "saga_quarantine_end", "DELETE FROM saga_quarantine WHERE saga_id = ANY ($1::text[])")

    /// These can be read, and go on.
    func end(_ ids: [SagaID]) async throws(PostgresError) {
        if ids.isEmpty { return }
        var parameters = SQLParameters()
        parameters.append(array: ids.map(\.rawValue))
        _ = try await self.pool.run(SQLQuery(Self.end, parameters))
    }

    private static let count = SQLStatement("saga_quarantine_count", "SELECT count(*) FROM saga_quarantine")

    /// What an older program, which doesn't know the table, has brought to an end, or parked.
    private static let tidy = SQLStatement(
        "saga_quarantine_tidy",
        """
        DELETE FROM saga_quarantine q USING saga_state s
        WHERE s.saga_id = q.saga_id AND (s.status IN ('COMPLETED', 'COMPENSATED') OR s.status = 'PARKED' AND NOT EXISTS (
            SELECT 1 FROM saga_command c WHERE c.saga_id = q.saga_id AND c.consumed_at IS NULL))
        """)

    /// - Parameter tidies: first removes what isn't in quarantine any more. It looks at every day's table.
    func count(tidies: Bool) async throws(PostgresError) -> Int {
        let count = try await self.pool.run(SQLQuery(Self.count)).single().int64(0)
        if count == 0 || !tidies { return Int(count) }
        return Int(try await self.pool.run([SQLQuery(Self.tidy), SQLQuery(Self.count)])[1].single().int64(0))
    }
}
