/// The commands that sagas are given (`saga_command`): how they are issued, and how their drivers learn of them.
struct SagaCommands: Sendable {
    enum Issued: Sendable, Equatable {
        /// Whoever drives the saga will consume it.
        case accepted(Int64)
        /// The saga is over.
        case tooLate
        case notFound
    }

    /// More than any saga has waiting; what is left over is read after those are consumed.
    private static let batchSize = 1000

    var pool: PostgresPool
    var days: SagaDays
    private let statements = LeafStatements()

    init(pool: PostgresPool, days: SagaDays) {
        self.pool = pool
        self.days = days
    }

    /// The row of the saga is locked first, so that a flush that ends it, parks it or puts it to sleep comes before or after,
    /// and compares. What sleeps or is parked is due at once, and a resume ends a quarantine, also of what was never read; this takes
    /// no ownership.
    private static func issue(_ leaf: SagaLeaf) -> String {
        """
        WITH state AS (
            UPDATE \(leaf.state) s
            SET commands = s.commands + 1,
                adoptions = CASE WHEN $2 = '\(SagaCommand.Kind.resume.rawValue)' THEN 0 ELSE s.adoptions END
            WHERE s.saga_id = $1 AND s.status IN ('RUNNING', 'COMPENSATING', 'PARKED')
            RETURNING s.saga_id, s.saga_type, s.definition_version, s.site, s.status, s.owner
        ), command AS (
            INSERT INTO saga_command (saga_id, kind, issuer, reason) SELECT saga_id, $2, $3, $4 FROM state
            RETURNING command_id
        ), waiting AS (
            \(SagaSleepers.makeDue("state WHERE status = 'PARKED' OR owner = \(SagaOwner.asleep)"))
        ), quarantine AS (
            DELETE FROM saga_quarantine q USING state s
            WHERE q.saga_id = s.saga_id AND $2 = '\(SagaCommand.Kind.resume.rawValue)'
        )
        SELECT (SELECT command_id FROM command), EXISTS (SELECT 1 FROM \(leaf.state) WHERE saga_id = $1)
        """
    }

    /// Gives a saga a command, durably.
    func issue(
        _ kind: SagaCommand.Kind, to id: SagaID, by issuer: String, reason: String
    ) async throws(PostgresError) -> Issued {
        let rows = try await self.days.reading([id], of: \.self) { parts throws(PostgresError) in
            try await self.pool.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(id.rawValue)
                    parameters.append(kind.rawValue)
                    parameters.append(Text.sanitised(issuer))
                    parameters.append(Text.sanitised(reason))
                    return SQLQuery(
                        self.statements.statement("saga_command_issue", on: part.leaf, Self.issue), parameters)
                })
        }
        guard let row = rows.joined().first(where: { _ in true }) else { return .notFound }
        if let command = try row.optionalInt64(0) { return .accepted(command) }
        return try row.bool(1) ? .tooLate : .notFound
    }

    private static let columns = "command_id, saga_id, kind, issuer, reason"
    private static let openOf = SQLStatement(
        "saga_commands_of",
        """
        SELECT \(Self.columns) FROM saga_command
        WHERE saga_id = ANY ($1::text[]) AND consumed_at IS NULL ORDER BY command_id LIMIT \(Self.batchSize)
        """)
    private static let openOfAll = SQLStatement(
        "saga_commands_open",
        "SELECT \(Self.columns) FROM saga_command WHERE consumed_at IS NULL ORDER BY command_id LIMIT \(Self.batchSize)"
    )

    /// Those of these sagas that are not consumed, oldest first.
    func open(of ids: [SagaID]) async throws(PostgresError) -> [SagaID: [SagaCommand]] {
        if ids.isEmpty { return [:] }
        var parameters = SQLParameters()
        parameters.append(array: ids.map(\.rawValue))
        return try Self.commands(try await self.pool.run(SQLQuery(Self.openOf, parameters)))
    }

    /// Those of all sagas that are not consumed.
    func open() async throws(PostgresError) -> [SagaID: [SagaCommand]] {
        try Self.commands(try await self.pool.run(SQLQuery(Self.openOfAll)))
    }

    private static func commands(_ rows: SQLRows) throws(PostgresError) -> [SagaID: [SagaCommand]] {
        var commands: [SagaID: [SagaCommand]] = [:]
        for row in rows {
            guard let id = SagaID(try row.text(1)) else { continue }
            // Left out, it would keep its saga from ever sleeping, parking or ending.
            let kind = SagaCommand.Kind(rawValue: try row.text(2)) ?? .unknown
            commands[id, default: []].append(
                SagaCommand(
                    id: try row.int64(0), kind: kind, issuer: try row.text(3), reason: try row.text(4)))
        }
        return commands
    }
}
