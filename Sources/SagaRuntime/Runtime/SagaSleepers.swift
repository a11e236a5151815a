import Synchronization

/// Wakes sagas: those that are due, and those whose dependency is worth another try.
final class SagaSleepers: Sendable {
    /// How many that wait for one dependency may be woken.
    enum Rate: Sendable, Equatable {
        /// It is down, and was asked lately.
        case none
        /// It is down: one saga shall look whether it still is.
        case probe
        /// It answers, as far as this process knows.
        case all
    }

    /// A saga that was woken, and belongs to this instance now.
    struct Woken: Sendable {
        var id: SagaID
        var version: Int
        var adoptions: Int
        var isUnsent: Bool
        var awakening: SagaMachine.Awakening
    }

    /// Once the clock is this far off, nobody knows how long a saga slept.
    private static let slack: Duration = .seconds(1)

    private let pool: PostgresPool
    private let days: SagaDays
    private let clock: DatabaseClock
    private let statements = LeafStatements()
    /// How many that wait for a dependency are woken next; doubles while it answers.
    private let ramps = Mutex<[String: Int]>([:])

    init(pool: PostgresPool, days: SagaDays, clock: DatabaseClock) {
        self.pool = pool
        self.days = days
        self.clock = clock
    }

    private static let served = """
        EXISTS (SELECT 1 FROM unnest($1::text[], $2::int[]) AS d(saga_type, version)
            WHERE d.saga_type = w.saga_type AND d.version = w.definition_version)
        """
    private static let due = SQLStatement(
        "saga_waiting_due",
        """
        SELECT w.saga_id FROM saga_waiting w
        WHERE w.due_at <= saga_now() AND \(SagaSleepers.served)
        ORDER BY w.due_at LIMIT $3
        """)
    /// One look at the index for each of them.
    private static let dependencies = SQLStatement(
        "saga_waiting_dependencies",
        """
        WITH RECURSIVE d AS (
            (SELECT dependency FROM saga_waiting WHERE due_at IS NULL ORDER BY dependency LIMIT 1)
            UNION ALL
            SELECT (SELECT w.dependency FROM saga_waiting w WHERE w.due_at IS NULL AND w.dependency > d.dependency
                ORDER BY w.dependency LIMIT 1)
            FROM d WHERE d.dependency IS NOT NULL
        )
        SELECT dependency FROM d WHERE dependency IS NOT NULL
        """)
    private static let waiting = SQLStatement(
        "saga_waiting_for",
        """
        SELECT w.saga_id FROM saga_waiting w
        WHERE w.due_at IS NULL AND w.dependency = $4 AND \(SagaSleepers.served)
        ORDER BY w.saga_id LIMIT $3
        """)

    /// The version rises by two, as at every claim. Nothing is counted: a saga that slept has killed nobody. A parked one is
    /// woken by a command.
    private static func claim(_ leaf: SagaLeaf) -> String {
        """
        WITH gone AS (
            DELETE FROM saga_waiting w
            WHERE w.saga_id IN (
                    SELECT saga_id FROM saga_waiting WHERE saga_id = ANY ($2::text[]) ORDER BY saga_id FOR UPDATE SKIP LOCKED)
                AND EXISTS (SELECT 1 FROM saga_instance m WHERE m.instance_id = $1 AND NOT m.fenced
                    AND m.lease_until > saga_now())
            RETURNING w.saga_id, w.due_at IS NULL AS is_back, w.doubt_until, w.clock_epoch
        )
        UPDATE \(leaf.state) s
        SET owner = $1, version = s.version + 2,
            unsent_version = CASE WHEN s.unsent_version = s.version THEN s.version + 2 END
        FROM gone g
        WHERE s.saga_id = g.saga_id
            AND (s.owner = \(SagaOwner.asleep) AND s.status IN ('RUNNING', 'COMPENSATING') OR s.status = 'PARKED')
        RETURNING s.saga_id, s.version, s.adoptions::int, coalesce(s.unsent_version = s.version, false), g.is_back,
            CASE WHEN g.clock_epoch = (SELECT epoch FROM saga_clock) THEN g.doubt_until END, saga_now()
        """
    }

    /// Claims sagas that are to go on.
    ///
    /// - Parameter rate: how many that wait for a dependency may be woken; `nil`: none of those, only what is due.
    func wake(
        limit: Int, owner: Int64, definitions: [(type: String, version: Int)], rate: ((String) -> Rate)?
    ) async throws(PostgresError) -> [Woken] {
        func parameters(_ limit: Int) -> SQLParameters {
            var parameters = SQLParameters()
            parameters.append(array: definitions.map(\.type))
            parameters.append(array: definitions.map { Int32(clamping: $0.version) })
            parameters.append(Int64(limit))
            return parameters
        }
        var ids = try Self.ids(try await self.pool.run(SQLQuery(Self.due, parameters(limit))))
        if let rate {
            for row in try await self.pool.run(SQLQuery(Self.dependencies)) {
                let dependency = try row.text(0)
                let share = self.share(of: dependency, rate(dependency))
                guard share > 0, ids.count < limit else { continue }
                var selection = parameters(min(share, limit - ids.count))
                selection.append(dependency)
                ids += try Self.ids(try await self.pool.run(SQLQuery(Self.waiting, selection)))
            }
        }
        return try await self.claim(ids, owner: owner)
    }

    /// What a dependency that was down can bear is found by doubling: it was not asked for long.
    private func share(of dependency: String, _ rate: Rate) -> Int {
        self.ramps.withLock { ramps in
            switch rate {
            case .none:
                ramps[dependency] = nil
                return 0
            case .probe:
                ramps[dependency] = nil
                return 1
            case .all:
                let share = min(ramps[dependency, default: 1], 1024)
                ramps[dependency] = share * 2
                return share
            }
        }
    }

    private static func ids(_ rows: SQLRows) throws(PostgresError) -> [SagaID] {
        var ids: [SagaID] = []
        for row in rows { if let id = SagaID(try row.text(0)) { ids.append(id) } }
        return ids
    }

    private func claim(_ ids: [SagaID], owner: Int64) async throws(PostgresError) -> [Woken] {
        if ids.isEmpty { return [] }
        let results = try await self.days.reading(ids, of: \.self) { parts throws(PostgresError) in
            try await self.pool.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(owner)
                    parameters.append(array: part.elements.map(\.rawValue))
                    return SQLQuery(self.statements.statement("saga_wake", on: part.leaf, Self.claim), parameters)
                })
        }
        let now = self.clock.moment()
        var woken: [Woken] = []
        for row in results.joined() {
            guard let id = SagaID(try row.text(0)) else { continue }
            var doubtUntil: BootTime?
            let theirs = try row.timestamp(6)
            let distance = max(theirs - now.time, now.time - theirs)
            if let until = try row.optionalTimestamp(5), distance <= Self.slack {
                doubtUntil = now.uptime + min(until - now.time, .zero)
            }
            woken.append(
                Woken(
                    id: id, version: Int(try row.int32(1)), adoptions: Int(try row.int32(2)), isUnsent: try row.bool(3),
                    awakening: SagaMachine.Awakening(doubtUntil: doubtUntil, dependencyIsBack: try row.bool(4))))
        }
        return woken
    }
}
