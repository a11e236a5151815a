/// The SQL of a flush. Tables are touched in one order everywhere: saga_request, saga_state, what the definitions own,
/// saga_event, saga_secret.
///
/// Every statement takes its sagas from the guarded one: from its RETURNING, or by a join on owner and new version.
enum JournalStatements {
    /// Inserts sagas with their first events, running `step` for the whole batch.
    ///
    /// Parameters: see `JournalBatch.createQuery`. Result: one row per saga that the instance may insert:
    /// (saga_id, accepted, granted, output). No row at all: the instance is fenced or its lease is over.
    static func create(step: DatabaseStep?) -> SQLStatement {
        let stepName = step.map { "_" + $0.name } ?? ""
        let ctes = step.map { $0.ctes } ?? "granted AS (SELECT saga_id, NULL::text AS output FROM accepted)"
        return SQLStatement(
            "journal_create\(stepName)",
            """
            WITH input AS (
                SELECT u.*
                FROM unnest(
                    $2::text[], $3::text[], $4::int[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::uuid[],
                    $9::text[], $10::text[], $11::int[], $12::bytea[], $13::bytea[], $14::int[], $15::text[],
                    $16::text[], $17::int[], $18::text[], $19::int[], $20::bytea[], $21::text[],
                    $22::text[], $23::int[], $24::text[], $25::int[], $26::bytea[], $27::text[],
                    $28::text[]
                ) WITH ORDINALITY AS u(
                    saga_id, saga_type, definition_version, timeout_at, created_at, user_id, resource_id,
                    batch_id, request_id, method, digest, secrets, max_retries, argument,
                    status, step_index, current_step, last_sequence, events, error_message,
                    r_status, r_step_index, r_current_step, r_last_sequence, r_events, r_error_message,
                    tenant_id, ordinal)
                WHERE EXISTS (
                    SELECT 1 FROM saga_instance
                    WHERE instance_id = $1 AND NOT fenced AND lease_until > saga_now())
            ), claimed AS (
                INSERT INTO saga_request (user_id, request_id, method, saga_id, digest)
                SELECT user_id, request_id, method, saga_id, digest FROM input WHERE request_id IS NOT NULL
                ORDER BY user_id, request_id, method
                ON CONFLICT DO NOTHING
                RETURNING saga_id
            ), accepted AS (
                SELECT saga_id, argument::jsonb AS argument, ordinal FROM input
                WHERE request_id IS NULL OR saga_id IN (SELECT saga_id FROM claimed)
            ), \(ctes), picked AS (
                SELECT i.*, g.saga_id IS NOT NULL AS is_granted, g.output
                FROM input i JOIN accepted a ON a.ordinal = i.ordinal LEFT JOIN granted g ON g.saga_id = i.saga_id
            ), state AS (
                INSERT INTO saga_state (
                    saga_id, status, step_index, version, last_sequence, owner, timeout_at, started_at, created_at,
                    updated_at, completed_at, definition_version, max_retries, saga_type, current_step, error_message)
                SELECT saga_id, (CASE WHEN is_granted THEN status ELSE r_status END)::saga_status,
                    CASE WHEN is_granted THEN step_index ELSE r_step_index END, 1,
                    CASE WHEN is_granted THEN last_sequence ELSE r_last_sequence END, $1, timeout_at, created_at,
                    created_at, created_at,
                    CASE WHEN CASE WHEN is_granted THEN status ELSE r_status END IN ('COMPLETED', 'COMPENSATED')
                        THEN created_at END,
                    definition_version, max_retries, saga_type,
                    CASE WHEN is_granted THEN current_step ELSE r_current_step END,
                    CASE WHEN is_granted THEN error_message ELSE r_error_message END
                FROM picked
            ), event AS (
                INSERT INTO saga_event (
                    saga_id, sequence, user_id, tenant_id, resource_id, batch_id, events, output)
                SELECT saga_id, CASE WHEN is_granted THEN last_sequence ELSE r_last_sequence END, user_id, tenant_id,
                    resource_id, batch_id, CASE WHEN is_granted THEN events ELSE r_events END, output
                FROM picked
            ), secret AS (
                INSERT INTO saga_secret (saga_id, secrets)
                SELECT saga_id, secrets FROM picked
                WHERE secrets IS NOT NULL
                    AND CASE WHEN is_granted THEN status ELSE r_status END NOT IN ('COMPLETED', 'COMPENSATED')
            )
            SELECT i.saga_id, p.saga_id IS NOT NULL, coalesce(p.is_granted, false), p.output
            FROM input i LEFT JOIN picked p ON p.ordinal = i.ordinal
            """)
    }

    /// Moves sagas on. Result: (saga_id) of those that passed the guard.
    static let transition = SQLStatement(
        "journal_transition",
        """
        WITH state AS (
            UPDATE saga_state s
            SET status = i.status::saga_status, step_index = i.step_index, current_step = i.current_step,
                version = s.version + 1, last_sequence = i.last_sequence, updated_at = i.now,
                completed_at = CASE WHEN i.status IN ('COMPLETED', 'COMPENSATED') THEN i.now END,
                error_message = i.error_message, retry_count = i.retry_count, adoptions = i.adoptions
            FROM unnest(
                $2::text[], $3::int[], $4::timestamptz[], $5::int[], $6::int[],
                $7::text[], $8::int[], $9::text[], $10::int[], $11::bytea[], $12::text[]
            ) AS i(
                saga_id, version, now, retry_count, adoptions,
                status, step_index, current_step, last_sequence, events, error_message)
            WHERE s.saga_id = i.saga_id AND s.owner = $1 AND s.version = i.version
            RETURNING s.saga_id, i.last_sequence, i.events
        ), event AS (
            INSERT INTO saga_event (saga_id, sequence, events) SELECT saga_id, last_sequence, events FROM state
        )
        SELECT saga_id FROM state
        """)

    /// Moves sagas on by what a database step that may refuse decides. Result: (saga_id, granted, output).
    static func transition(step: DatabaseStep) -> SQLStatement {
        SQLStatement(
            "journal_transition_\(step.name)",
            """
            WITH input AS (
                SELECT u.*
                FROM unnest(
                    $2::text[], $3::int[], $4::timestamptz[], $5::int[], $6::int[], $7::text[],
                    $8::text[], $9::int[], $10::text[], $11::int[], $12::bytea[], $13::text[],
                    $14::text[], $15::int[], $16::text[], $17::int[], $18::bytea[], $19::text[]
                ) WITH ORDINALITY AS u(
                    saga_id, version, now, retry_count, adoptions, argument,
                    status, step_index, current_step, last_sequence, events, error_message,
                    r_status, r_step_index, r_current_step, r_last_sequence, r_events, r_error_message, ordinal)
            ), accepted AS (
                SELECT s.saga_id, i.argument::jsonb AS argument, i.ordinal
                FROM input i JOIN saga_state s ON s.saga_id = i.saga_id
                WHERE s.owner = $1 AND s.version = i.version
                FOR UPDATE OF s
            ), \(step.ctes), picked AS (
                SELECT i.*, g.saga_id IS NOT NULL AS is_granted, g.output
                FROM input i JOIN accepted a ON a.ordinal = i.ordinal LEFT JOIN granted g ON g.saga_id = i.saga_id
            ), state AS (
                UPDATE saga_state s
                SET status = (CASE WHEN is_granted THEN p.status ELSE r_status END)::saga_status,
                    step_index = CASE WHEN is_granted THEN p.step_index ELSE r_step_index END,
                    current_step = CASE WHEN is_granted THEN p.current_step ELSE r_current_step END,
                    version = s.version + 1,
                    last_sequence = CASE WHEN is_granted THEN p.last_sequence ELSE r_last_sequence END,
                    updated_at = p.now,
                    completed_at = CASE WHEN CASE WHEN is_granted THEN p.status ELSE r_status END
                        IN ('COMPLETED', 'COMPENSATED') THEN p.now END,
                    error_message = CASE WHEN is_granted THEN p.error_message ELSE r_error_message END,
                    retry_count = p.retry_count, adoptions = p.adoptions
                FROM picked p
                WHERE s.saga_id = p.saga_id
            ), event AS (
                INSERT INTO saga_event (saga_id, sequence, events, output)
                SELECT saga_id, CASE WHEN is_granted THEN last_sequence ELSE r_last_sequence END,
                    CASE WHEN is_granted THEN events ELSE r_events END, output
                FROM picked
            )
            SELECT saga_id, is_granted, output FROM picked
            """)
    }

    /// What later statements of a flush may touch: the sagas that the guarded statements let through, with that outcome.
    private static let accepted = """
        WITH accepted AS (
            SELECT s.saga_id, i.argument::jsonb AS argument, i.ordinal
            FROM unnest($2::text[], $3::int[], $4::text[], $5::text[])
                WITH ORDINALITY AS i(saga_id, version, status, argument, ordinal)
            JOIN saga_state s ON s.saga_id = i.saga_id
            WHERE s.owner = $1 AND s.version = i.version AND s.status = i.status::saga_status
        )
        """

    /// A database step that never refuses.
    static func ride(step: DatabaseStep) -> SQLStatement {
        SQLStatement("journal_step_\(step.name)", "\(Self.accepted), \(step.ctes) SELECT saga_id FROM granted")
    }

    static func ride(_ sideEffect: SideEffect) -> SQLStatement {
        let separator = sideEffect.statement.hasPrefix(",") ? "" : " "
        return SQLStatement("journal_side_\(sideEffect.name)", Self.accepted + separator + sideEffect.statement)
    }

    /// Option values are erased when the saga ends.
    static let eraseSecrets = SQLStatement(
        "journal_erase_secrets",
        "\(Self.accepted) DELETE FROM saga_secret x USING accepted a WHERE x.saga_id = a.saga_id")

    /// What became of sagas whose flush was lost, or whose guard did not hold.
    /// Result: (saga_id, owner, version, status, output of the row at the version's last sequence).
    static let reread = SQLStatement(
        "journal_reread",
        """
        SELECT s.saga_id, s.owner, s.version, s.status::text, e.output
        FROM unnest($1::text[]) AS i(saga_id)
        JOIN saga_state s ON s.saga_id = i.saga_id
        LEFT JOIN saga_event e ON e.saga_id = s.saga_id AND e.sequence = s.last_sequence
        """)

    /// Ends a backend that may still run a lost flush. Result: (still there).
    static let terminateBackend = SQLStatement(
        "journal_terminate_backend",
        """
        SELECT count(*) FILTER (WHERE pg_terminate_backend(pid) OR true)
        FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
        """)
}
