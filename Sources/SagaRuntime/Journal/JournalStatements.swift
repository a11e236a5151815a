/// The SQL of a flush. Tables are touched in one order everywhere: saga_request, saga_state, what the definitions own,
/// saga_event, saga_secret.
///
/// Every statement takes its sagas from the guarded one: from its RETURNING, or by a join on owner and new version. What
/// is in saga_state already is found on its day's leaf; what is inserted goes through the parents (`SagaLeaf`).
struct JournalStatements: Sendable {
    private let made = LeafStatements()

    /// Inserts sagas with their first events, running `step` for the whole batch.
    ///
    /// Result: one row per saga that the instance may insert: (saga_id, accepted, granted, output). No row at all: the
    /// instance is fenced or its lease is over.
    func create(step: DatabaseStep?) -> SQLStatement {
        self.made.statement("journal_create\(step.map { "_" + $0.name } ?? "")", on: .parent) { _ in
            """
            WITH input AS (
                SELECT u.*
                FROM \(JournalInput.creation.relation("u"))
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
            ), \(step?.ctes ?? "granted AS (SELECT saga_id, NULL::text AS output FROM accepted)"), decided AS (
                SELECT i.ordinal, i.saga_id, i.saga_type, i.definition_version, i.max_retries, i.timeout_at, i.created_at,
                    i.user_id, i.tenant_id, i.resource_id, i.batch_id, i.secrets,
                    g.saga_id IS NOT NULL AS is_granted, g.output,
                    \(JournalInput.decided)
                FROM input i JOIN accepted a ON a.ordinal = i.ordinal LEFT JOIN granted g ON g.saga_id = i.saga_id
            ), state AS (
                INSERT INTO saga_state (
                    saga_id, status, step_index, version, last_sequence, owner, timeout_at, started_at, created_at,
                    updated_at, completed_at, definition_version, max_retries, saga_type, current_step, error_message, site)
                SELECT saga_id, status::saga_status, step_index, 1, last_sequence, $1, timeout_at, created_at, created_at,
                    created_at, CASE WHEN status IN ('COMPLETED', 'COMPENSATED') THEN created_at END,
                    definition_version, max_retries, saga_type, current_step, error_message,
                    \(step?.choosesSite == true ? "output::jsonb->>'site'" : "NULL")
                FROM decided
            ), event AS (
                INSERT INTO saga_event (
                    saga_id, sequence, user_id, tenant_id, resource_id, batch_id, events, output)
                SELECT saga_id, last_sequence, user_id, tenant_id, resource_id, batch_id, events, output
                FROM decided
            ), secret AS (
                INSERT INTO saga_secret (saga_id, secrets)
                SELECT saga_id, secrets FROM decided
                WHERE secrets IS NOT NULL AND status NOT IN ('COMPLETED', 'COMPENSATED')
            )
            SELECT i.saga_id, d.saga_id IS NOT NULL, coalesce(d.is_granted, false), d.output
            FROM input i LEFT JOIN decided d ON d.ordinal = i.ordinal
            """
        }
    }

    /// Moves sagas on. Result: (saga_id) of those that passed the guard.
    func transition(on leaf: SagaLeaf) -> SQLStatement {
        self.made.statement("journal_transition", on: leaf) { leaf in
            """
            WITH state AS (
                UPDATE \(leaf.state) s
                SET status = i.status::saga_status, step_index = i.step_index, current_step = i.current_step,
                    version = s.version + 1, last_sequence = i.last_sequence, updated_at = i.now,
                    completed_at = CASE WHEN i.status IN ('COMPLETED', 'COMPENSATED') THEN i.now END,
                    error_message = i.error_message, retry_count = i.retry_count, adoptions = i.adoptions
                FROM \(JournalInput.transition.relation("i"))
                WHERE s.saga_id = i.saga_id AND s.owner = $1 AND s.version = i.version
                    AND (i.commands < 0 OR s.commands = i.commands)
                RETURNING s.saga_id, i.last_sequence, i.events
            ), event AS (
                INSERT INTO saga_event (saga_id, sequence, events)
                SELECT saga_id, last_sequence, events FROM state WHERE events IS NOT NULL
            )
            SELECT saga_id FROM state
            """
        }
    }

    /// Puts sagas to sleep. Instants count from now by the database's clock, in the same statement as its epoch.
    /// Result: (saga_id) of those that passed the guard.
    func sleep(on leaf: SagaLeaf) -> SQLStatement {
        let isBlind = Mutant.sleepIgnoresCommands.isActive
        return self.made.statement(isBlind ? "journal_blind_sleep" : "journal_sleep", on: leaf) { leaf in
            """
            WITH state AS (
                UPDATE \(leaf.state) s
                SET owner = \(SagaOwner.asleep), version = s.version + 1, adoptions = i.adoptions,
                    unsent_version = CASE WHEN i.is_unsent THEN s.version + 1 END
                FROM \(JournalInput.sleep.relation("i"))
                WHERE s.saga_id = i.saga_id AND s.owner = $1 AND s.version = i.version
                    AND (\(isBlind ? "true OR " : "")s.commands = i.commands)
                RETURNING s.saga_id, s.saga_type, s.definition_version, coalesce(s.site, '') AS site, i.dependency, i.reason,
                    -- A flush that waited out an outage doesn't put off what is to turn back at its deadline.
                    least(saga_now() + (i.due_at - i.asleep_at),
                        CASE WHEN s.status = 'RUNNING' AND i.due_at <= s.timeout_at THEN s.timeout_at END) AS due_at,
                    saga_now() + (i.doubt_until - i.asleep_at) AS doubt_until
            ), waiting AS (
                INSERT INTO saga_waiting (
                    saga_id, saga_type, definition_version, site, due_at, dependency, reason, doubt_until, clock_epoch)
                SELECT saga_id, saga_type, definition_version, site, due_at, dependency, reason, doubt_until,
                    (SELECT epoch FROM saga_clock)
                FROM state
                ON CONFLICT (saga_id) DO UPDATE
                SET site = excluded.site, due_at = excluded.due_at, dependency = excluded.dependency, reason = excluded.reason,
                    doubt_until = excluded.doubt_until, clock_epoch = excluded.clock_epoch
            )
            SELECT saga_id FROM state
            """
        }
    }

    /// Moves sagas on by what a database step that may refuse decides. Result: (saga_id, granted, output).
    func decision(step: DatabaseStep, on leaf: SagaLeaf) -> SQLStatement {
        self.made.statement("journal_decision_\(step.name)", on: leaf) { leaf in
            """
            WITH input AS (
                SELECT u.* FROM \(JournalInput.decision.relation("u"))
            ), accepted AS (
                SELECT s.saga_id, i.argument::jsonb AS argument, i.ordinal
                FROM input i JOIN \(leaf.state) s ON s.saga_id = i.saga_id
                WHERE s.owner = $1 AND s.version = i.version AND (i.commands < 0 OR s.commands = i.commands)
                FOR UPDATE OF s
            ), \(step.ctes), decided AS (
                SELECT i.saga_id, i.now, i.retry_count, i.adoptions, g.saga_id IS NOT NULL AS is_granted, g.output,
                    \(JournalInput.decided)
                FROM input i JOIN accepted a ON a.ordinal = i.ordinal LEFT JOIN granted g ON g.saga_id = i.saga_id
            ), state AS (
                UPDATE \(leaf.state) s
                SET status = d.status::saga_status, step_index = d.step_index, current_step = d.current_step,
                    version = s.version + 1, last_sequence = d.last_sequence, updated_at = d.now,
                    completed_at = CASE WHEN d.status IN ('COMPLETED', 'COMPENSATED') THEN d.now END,
                    error_message = d.error_message, retry_count = d.retry_count, adoptions = d.adoptions\(
                        step.choosesSite ? ", site = coalesce(d.output::jsonb->>'site', s.site)" : "")
                FROM decided d
                WHERE s.saga_id = d.saga_id
            ), event AS (
                INSERT INTO saga_event (saga_id, sequence, events, output)
                SELECT saga_id, last_sequence, events, output FROM decided
            )
            SELECT saga_id, is_granted, output FROM decided
            """
        }
    }

    /// What later statements of a flush may touch: the sagas that the guarded statements let through, with that outcome.
    private static func accepted(on leaf: SagaLeaf) -> String {
        """
        WITH accepted AS (
            SELECT s.saga_id, i.argument::jsonb AS argument, i.ordinal
            FROM \(JournalInput.ride.relation("i"))
            JOIN \(leaf.state) s ON s.saga_id = i.saga_id
            WHERE s.owner = $1 AND s.version = i.version AND s.status = i.status::saga_status
        )
        """
    }

    /// A database step that never refuses.
    func ride(step: DatabaseStep, on leaf: SagaLeaf) -> SQLStatement {
        self.made.statement("journal_step_\(step.name)", on: leaf) { leaf in
            "\(Self.accepted(on: leaf)), \(step.ctes) SELECT saga_id FROM granted"
        }
    }

    func ride(_ sideEffect: SideEffect, on leaf: SagaLeaf) -> SQLStatement {
        self.made.statement("journal_side_\(sideEffect.name)", on: leaf) { leaf in
            let separator = sideEffect.statement.hasPrefix(",") ? "" : " "
            return Self.accepted(on: leaf) + separator + sideEffect.statement
        }
    }

    /// Option values are erased when the saga ends.
    func eraseSecrets(on leaf: SagaLeaf) -> SQLStatement {
        self.made.statement("journal_erase_secrets", on: leaf) { leaf in
            "\(Self.accepted(on: leaf)) DELETE FROM saga_secret x USING accepted a WHERE x.saga_id = a.saga_id"
        }
    }

    /// What became of sagas whose flush was lost, or whose guard did not hold.
    /// Result: (saga_id, owner, version, status, output of the row at the version's last sequence, commands).
    func reread(on leaf: SagaLeaf) -> SQLStatement {
        self.made.statement("journal_reread", on: leaf) { leaf in
            """
            SELECT s.saga_id, s.owner, s.version, s.status::text, e.output, s.commands
            FROM unnest($1::text[]) AS i(saga_id)
            JOIN \(leaf.state) s ON s.saga_id = i.saga_id
            LEFT JOIN \(leaf.event) e ON e.saga_id = s.saga_id AND e.sequence = s.last_sequence
            """
        }
    }

    /// Ends a backend that may still run a lost flush. Result: (still there).
    static let terminateBackend = SQLStatement(
        "journal_terminate_backend",
        """
        SELECT count(*) FILTER (WHERE pg_terminate_backend(pid) OR true)
        FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
        """)
}
