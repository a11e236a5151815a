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
    /// and compares. What sleeps or is parked is due at once, and an operator's command ends a quarantine, also of what was never
    /// read; this takes no ownership.
    private static func issue(_ leaf: SagaLeaf) -> String {
        """
        WITH state AS (
            UPDATE \(leaf.state) s
            SET commands = s.commands + 1,
                adoptions = CASE WHEN \(Self.isOperators) THEN 0 ELSE s.adoptions END
            WHERE s.saga_id = $1 AND s.status IN ('RUNNING', 'COMPENSATING', 'PARKED')
            RETURNING s.saga_id, s.saga_type, s.definition_version, s.site, s.status, s.owner, s.last_sequence
        ), command AS (
            INSERT INTO saga_command (saga_id, kind, issuer, reason, sequence)
            SELECT saga_id, $2, $3, $4, coalesce($5::int, last_sequence) FROM state
            RETURNING command_id
        ), waiting AS (
            \(SagaSleepers.makeDue("state WHERE status = 'PARKED' OR owner = \(SagaOwner.asleep)"))
        ), quarantine AS (
            DELETE FROM saga_quarantine q USING state s
            WHERE q.saga_id = s.saga_id AND \(Self.isOperators)
        )
        SELECT (SELECT command_id FROM command), EXISTS (SELECT 1 FROM \(leaf.state) WHERE saga_id = $1)
        """
    }

    /// A deletion's cancel comes from anybody; it gives a saga that has killed servers no further lives.
    private static let isOperators = "$2 <> '\(SagaCommand.Kind.cancel.rawValue)'"

    /// Gives a saga a command, durably.
    ///
    /// - Parameter sequence: of the newest event that the issuer knows of; `nil`: as the saga is now.
    func issue(
        _ kind: SagaCommand.Kind, to id: SagaID, by issuer: String, reason: String, sequence: Int? = nil
    ) async throws(PostgresError) -> Issued {
        let rows = try await self.days.reading([id], of: \.self) { parts throws(PostgresError) in
            try await self.pool.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(id.rawValue)
                    parameters.append(kind.rawValue)
                    parameters.append(Text.sanitised(issuer))
                    parameters.append(Text.sanitised(reason))
                    parameters.append(sequence.map { Int32(clamping: $0) })
                    return SQLQuery(
                        self.statements.statement("saga_command_issue", on: part.leaf, Self.issue), parameters)
                })
        }
        guard let row = rows.joined().first(where: { _ in true }) else { return .notFound }
        if let command = try row.optionalInt64(0) { return .accepted(command) }
        return try row.bool(1) ? .tooLate : .notFound
    }

    private static let result = SQLStatement(
        "saga_command_result", "SELECT consumed_at IS NOT NULL, result FROM saga_command WHERE command_id = $1")

    /// What became of a command; `nil`: nobody has consumed it.
    func result(of command: Int64) async throws(PostgresError) -> SagaCommand.Result? {
        var parameters = SQLParameters()
        parameters.append(command)
        let row = try await self.pool.run(SQLQuery(Self.result, parameters)).single()
        guard try row.bool(0) else { return nil }
        // A newer program's word for something that this one doesn't know.
        return try row.optionalText(1).flatMap(SagaCommand.Result.init) ?? .unknownKind
    }

    private static let columns = "c.command_id, c.saga_id, c.kind, c.issuer, c.reason, c.sequence"
    private static let openOf = SQLStatement(
        "saga_commands_of",
        """
        SELECT \(Self.columns) FROM saga_command c
        WHERE c.saga_id = ANY ($1::text[]) AND c.consumed_at IS NULL ORDER BY c.command_id LIMIT \(Self.batchSize)
        """)
    /// However many wait for somebody to take their sagas up: those that somebody drives come through.
    private static let openOfDriven = SQLStatement(
        "saga_commands_open",
        """
        SELECT \(Self.columns) FROM saga_command c
        WHERE c.consumed_at IS NULL AND NOT EXISTS (SELECT 1 FROM saga_waiting w WHERE w.saga_id = c.saga_id)
        ORDER BY c.command_id LIMIT \(Self.batchSize)
        """)

    /// Those of these sagas that are not consumed, oldest first.
    func open(of ids: [SagaID]) async throws(PostgresError) -> [SagaID: [SagaCommand]] {
        if ids.isEmpty { return [:] }
        var parameters = SQLParameters()
        parameters.append(array: ids.map(\.rawValue))
        return try Self.commands(try await self.pool.run(SQLQuery(Self.openOf, parameters)))
    }

    /// Those that are not consumed, of all sagas that don't wait to be taken up.
    func openOfDriven() async throws(PostgresError) -> [SagaID: [SagaCommand]] {
        try Self.commands(try await self.pool.run(SQLQuery(Self.openOfDriven)))
    }

    private static func commands(_ rows: SQLRows) throws(PostgresError) -> [SagaID: [SagaCommand]] {
        var commands: [SagaID: [SagaCommand]] = [:]
        for row in rows {
            guard let id = SagaID(try row.text(1)) else { continue }
            // Left out, it would keep its saga from ever sleeping, parking or ending.
            let kind = SagaCommand.Kind(rawValue: try row.text(2)) ?? .unknown
            commands[id, default: []].append(
                SagaCommand(
                    id: try row.int64(0), kind: kind, issuer: try row.text(3), reason: try row.text(4),
                    sequence: try row.optionalInt32(5).map(Int.init)))
        }
        return commands
    }
}
