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
        /// It is parked, and was given a command; others could not obey it.
        var wasQuarantined: Bool
        var awakening: SagaMachine.Awakening
    }

    /// What one who wakes sagas can go on with.
    struct Reach: Sendable {
        /// The instance that they belong to from then on.
        var owner: Int64
        var definitions: [(type: String, version: Int)]
        /// The sites that it can call. Sagas that name none are everybody's.
        var sites: [String] = []
        /// These it has found to be of a newer format.
        var newer: [SagaID] = []
        /// These it has tried in vain: not as long as they are in quarantine.
        var quarantined: [SagaID] = []
    }

    /// How many that wait for one dependency are under way at a time. What it can bear is found by doubling, as long as they
    /// come through: nobody has asked it for long.
    private struct Ramp {
        private var size = 0
        private var woken: Set<SagaID> = []

        /// How many more may be woken now.
        mutating func room(isHeld: (SagaID) -> Bool) -> Int {
            self.woken = self.woken.filter(isHeld)
            if self.woken.count <= self.size / 2 { self.size = min(max(self.size * 2, 1), SagaSleepers.batchSize) }
            return max(self.size - self.woken.count, 0)
        }

        mutating func add(_ ids: [SagaID]) { self.woken.formUnion(ids) }
    }

    /// The most that are woken at once.
    static let batchSize = 1024
    /// How long the command of a parked saga may take to be consumed, in seconds, before others try.
    private static let patience = 30
    /// Once the clock is this far off, nobody knows how long a saga slept.
    private static let slack: Duration = .seconds(1)

    private let pool: PostgresPool
    private let days: SagaDays
    private let clock: DatabaseClock
    private let statements = LeafStatements()
    private let ramps = Mutex<[String: Ramp]>([:])
    /// The saga that looked after each dependency last, while it is down.
    private let probes = Mutex<[String: String]>([:])

    init(pool: PostgresPool, days: SagaDays, clock: DatabaseClock) {
        self.pool = pool
        self.days = days
        self.clock = clock
    }

    /// What is read of one site by its index, for each site that is served and for those that name none: rows of other sites
    /// cost nothing, however many there are.
    private static func ofEachSite(_ condition: String, by order: String) -> String {
        """
        SELECT f.saga_id
        FROM (SELECT '' AS site UNION SELECT unnest($4::text[])) p, LATERAL (
            SELECT w.saga_id, w.\(order) AS place FROM saga_waiting w
            WHERE w.site = p.site AND \(condition)
                AND EXISTS (SELECT 1 FROM unnest($1::text[], $2::int[]) AS d(saga_type, version)
                    WHERE d.saga_type = w.saga_type AND d.version = w.definition_version)
                AND NOT w.saga_id = ANY ($5::text[])
                AND NOT (w.saga_id = ANY ($6::text[])
                    AND EXISTS (SELECT 1 FROM saga_quarantine q WHERE q.saga_id = w.saga_id))
            ORDER BY w.\(order) LIMIT $3) f
        ORDER BY f.place LIMIT $3
        """
    }
    private static let due = SQLStatement(
        "saga_waiting_due", SagaSleepers.ofEachSite("w.due_at <= saga_now()", by: "due_at"))
    /// The clock has stepped since: what it said when they are due says nothing any more, maybe for hours.
    private static let outdated = SQLStatement(
        "saga_waiting_outdated",
        SagaSleepers.ofEachSite(
            "w.due_at IS NOT NULL AND w.clock_epoch < (SELECT epoch FROM saga_clock)", by: "clock_epoch"))
    private static let waiting = SQLStatement(
        "saga_waiting_for",
        SagaSleepers.ofEachSite("w.dependency = $7 AND w.saga_id > $8", by: "saga_id"))
    /// One look at the index for each of them.
    private static let dependencies = SQLStatement(
        "saga_waiting_dependencies",
        """
        WITH RECURSIVE d AS (
            (SELECT dependency FROM saga_waiting WHERE dependency IS NOT NULL ORDER BY dependency LIMIT 1)
            UNION ALL
            SELECT (SELECT w.dependency FROM saga_waiting w WHERE w.dependency > d.dependency ORDER BY w.dependency LIMIT 1)
            FROM d WHERE d.dependency IS NOT NULL
        )
        SELECT dependency FROM d WHERE dependency IS NOT NULL
        """)

    /// The version rises by two, as at every claim. Nothing is counted: a saga that slept has killed nobody. A parked one is
    /// woken by a command.
    ///
    /// The row of a parked one stays until its command is consumed, and is due again later: no claim finds what is parked, so
    /// whoever crashes here would take the command along.
    ///
    /// A row without a saga would stay the first that is due, for good.
    ///
    /// The saga's own row is locked first, as by the flush that puts it to sleep and by a command.
    private static func claim(_ leaf: SagaLeaf) -> String {
        """
        WITH taken AS (
            -- As the row is once it is locked: what the snapshot says of it may be over.
            SELECT s.saga_id, s.status = 'PARKED' AND EXISTS (
                    SELECT 1 FROM saga_command c WHERE c.saga_id = s.saga_id AND c.consumed_at IS NULL) AS is_commanded,
                s.owner = \(SagaOwner.asleep) AND s.status IN ('RUNNING', 'COMPENSATING') OR s.status = 'PARKED' AS wakes
            FROM \(leaf.state) s
            WHERE s.saga_id = ANY ($2::text[])
                AND EXISTS (SELECT 1 FROM saga_instance m WHERE m.instance_id = $1 AND NOT m.fenced
                    AND m.lease_until > saga_now())
            ORDER BY s.saga_id FOR UPDATE OF s SKIP LOCKED
        ), stray AS (
            DELETE FROM saga_waiting w
            WHERE w.saga_id = ANY ($2::text[]) AND NOT EXISTS (SELECT 1 FROM \(leaf.state) s WHERE s.saga_id = w.saga_id)
        ), gone AS (
            DELETE FROM saga_waiting w USING taken t WHERE w.saga_id = t.saga_id AND NOT t.is_commanded
            RETURNING w.saga_id, t.wakes, w.doubt_until, w.clock_epoch
        ), kept AS (
            UPDATE saga_waiting w
            SET due_at = saga_now() + interval '\(Self.patience) seconds', clock_epoch = (SELECT epoch FROM saga_clock)
            FROM taken t WHERE w.saga_id = t.saga_id AND t.is_commanded
            RETURNING w.saga_id, t.wakes, w.doubt_until, w.clock_epoch
        ), woken AS MATERIALIZED (
            -- Not merged into the UPDATE: a row that has changed since the snapshot would run the two above once more (XX000).
            SELECT * FROM gone UNION ALL SELECT * FROM kept
        )
        UPDATE \(leaf.state) s
        SET owner = $1, version = s.version + 2,
            unsent_version = CASE WHEN s.unsent_version = s.version THEN s.version + 2 END
        FROM woken g
        WHERE s.saga_id = g.saga_id AND g.wakes
        RETURNING s.saga_id, s.version, s.adoptions::int, coalesce(s.unsent_version = s.version, false),
            CASE WHEN g.clock_epoch = (SELECT epoch FROM saga_clock)\(
                Mutant.sleepCountsInAnyEpoch.isActive ? " OR true" : "") THEN g.doubt_until END, saga_now(),
            EXISTS (SELECT 1 FROM saga_quarantine q WHERE q.saga_id = s.saga_id)
        """
    }
    /// One name stands for one text.
    private static var claimName: String { Mutant.sleepCountsInAnyEpoch.isActive ? "saga_any_wake" : "saga_wake" }

    /// Claims sagas that are to go on.
    ///
    /// - Parameters:
    ///   - isHeld: whether a saga is driven here: those are not woken, and those that were woken before are still on their way.
    ///   - rate: how many that wait for a dependency may be woken; `nil`: none of those, only what is due.
    func wake(
        limit: Int, by reach: Reach, isHeld: (SagaID) -> Bool = { _ in false }, rate: ((String) -> Rate)?
    ) async throws(PostgresError) -> [Woken] {
        func parameters(_ limit: Int) -> SQLParameters {
            var parameters = SQLParameters()
            parameters.append(array: reach.definitions.map(\.type))
            parameters.append(array: reach.definitions.map { Int32(clamping: $0.version) })
            parameters.append(Int64(limit))
            parameters.append(array: reach.sites)
            parameters.append(array: reach.newer.map(\.rawValue))
            parameters.append(array: reach.quarantined.map(\.rawValue))
            return parameters
        }
        var ids = try await self.ids(SQLQuery(Self.due, parameters(limit)))
        /// Those that are woken for one.
        var dependencies: [SagaID: String] = [:]
        if ids.count < limit {
            ids += try await self.ids(SQLQuery(Self.outdated, parameters(limit - ids.count)))
        }
        if let rate {
            for row in try await self.pool.run(SQLQuery(Self.dependencies)) {
                let dependency = try row.text(0)
                let rate = rate(dependency)
                let share = self.share(of: dependency, rate, isHeld)
                guard share > 0, ids.count < limit else { continue }
                let waiting = try await self.ids(
                    waitingFor: dependency, parameters(min(share, limit - ids.count)), isProbe: rate == .probe)
                for id in waiting { dependencies[id] = dependency }
                ids += waiting
            }
        }
        // Whoever drives a saga here is told of further commands.
        return try await self.claim(ids.filter { !isHeld($0) }, owner: reach.owner, dependencies)
    }

    /// Probes take turns: one whose own call never gets an answer must not keep the others waiting for good.
    private func ids(
        waitingFor dependency: String, _ parameters: SQLParameters, isProbe: Bool
    ) async throws(PostgresError) -> [SagaID] {
        let before = isProbe ? self.probes.withLock { $0[dependency] ?? "" } : ""
        var ids: [SagaID] = []
        for start in before.isEmpty ? [""] : [before, ""] where ids.isEmpty {
            var selection = parameters
            selection.append(dependency)
            selection.append(start)
            ids = try await self.ids(SQLQuery(Self.waiting, selection))
        }
        self.probes.withLock { [ids] in $0[dependency] = isProbe ? ids.last?.rawValue : nil }
        self.ramps.withLock { [ids] in $0[dependency]?.add(ids) }
        return ids
    }

    private func share(of dependency: String, _ rate: Rate, _ isHeld: (SagaID) -> Bool) -> Int {
        self.ramps.withLock { ramps in
            switch rate {
            case .none:
                ramps[dependency] = nil
                return 0
            case .probe:
                ramps[dependency] = nil
                return 1
            case .all:
                return ramps[dependency, default: Ramp()].room(isHeld: isHeld)
            }
        }
    }

    /// Has sagas looked at that were given commands.
    ///
    /// - Parameter sagas: a relation with their rows of `saga_state`, and which of them.
    static func makeDue(_ sagas: String) -> String {
        """
        INSERT INTO saga_waiting (saga_id, saga_type, definition_version, site, due_at, reason, clock_epoch)
        SELECT saga_id, saga_type, definition_version, coalesce(site, ''), saga_now(), '\(SagaWait.Reason.command.rawValue)',
            (SELECT epoch FROM saga_clock)
        FROM \(sagas)
        ON CONFLICT (saga_id) DO UPDATE SET site = excluded.site, due_at = excluded.due_at, reason = excluded.reason
        """
    }

    /// Counts those that sleep, and those of them whose site no live instance serves.
    static let count = SQLStatement(
        "saga_waiting_count",
        """
        SELECT count(*), count(*) FILTER (WHERE w.site <> '' AND NOT w.site = ANY (l.sites))
        FROM saga_waiting w, (
            SELECT ARRAY(SELECT unnest(o.sites) FROM saga_instance o WHERE NOT o.fenced) AS sites) l
        """)

    /// Rows that no saga can have would be the first of their dependency for good.
    private static let dropMalformed = SQLStatement(
        "saga_waiting_drop", "DELETE FROM saga_waiting WHERE saga_id = ANY ($1::text[])")

    private func ids(_ query: SQLQuery) async throws(PostgresError) -> [SagaID] {
        var ids: [SagaID] = []
        var malformed: [String] = []
        for row in try await self.pool.run(query) {
            let text = try row.text(0)
            if let id = SagaID(text) { ids.append(id) } else { malformed.append(text) }
        }
        if !malformed.isEmpty {
            var parameters = SQLParameters()
            parameters.append(array: malformed)
            _ = try await self.pool.run(SQLQuery(Self.dropMalformed, parameters))
        }
        return ids
    }

    private func claim(
        _ ids: [SagaID], owner: Int64, _ dependencies: [SagaID: String]
    ) async throws(PostgresError) -> [Woken] {
        if ids.isEmpty { return [] }
        let results = try await self.days.reading(ids, of: \.self) { parts throws(PostgresError) in
            try await self.pool.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(owner)
                    parameters.append(array: part.elements.map(\.rawValue))
                    return SQLQuery(self.statements.statement(Self.claimName, on: part.leaf, Self.claim), parameters)
                })
        }
        let now = self.clock.moment()
        var woken: [Woken] = []
        for row in results.joined() {
            guard let id = SagaID(try row.text(0)) else { continue }
            var doubtUntil: BootTime?
            let theirs = try row.timestamp(5)
            let distance = Mutant.sleepCountsInAnyEpoch.isActive ? .zero : max(theirs - now.time, now.time - theirs)
            if let until = try row.optionalTimestamp(4), distance <= Self.slack {
                doubtUntil = now.uptime + min(until - theirs, .zero)
            }
            woken.append(
                Woken(
                    id: id, version: Int(try row.int32(1)),
                    adoptions: Int(try row.int32(2)) + (Mutant.waitingIsNoProgress.isActive ? 1 : 0),
                    isUnsent: try row.bool(3), wasQuarantined: try row.bool(6),
                    awakening: SagaMachine.Awakening(doubtUntil: doubtUntil, dependency: dependencies[id])))
        }
        return woken
    }
}
