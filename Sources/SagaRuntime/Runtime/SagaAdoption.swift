import Logging

/// Takes up sagas whose owner is gone, and those that this instance owns and does not hold.
///
/// A small service with an interval and a batch size; every replica runs one, there is no leader.
struct SagaAdoption: Sendable {
    /// Adoptions without progress after which a saga runs alone.
    static let quarantineFrom = 2
    /// Adoptions without progress after which a saga parks.
    static let poisonFrom = 6
    /// Adoptions without progress after which a saga is not even read: what was to park it was killed too.
    static let unreadFrom = 8
    static let batchSize = 200
    /// How long a saga that runs alone keeps the next one waiting.
    static let moment: Duration = .seconds(1)
    /// The same of one that runs alone for the last time. One that hangs for longer is no reason to keep others waiting: taken over
    /// is promised within 10 s.
    static let longestMoment: Duration = .seconds(8)
    /// How long a row of this instance must have stood still before it counts as forgotten.
    static let leftAloneAfter: Duration = .seconds(10)

    var lease: InstanceLease
    var worker: SagaWorker
    var pool: PostgresPool
    var reader: SagaReader
    var days: SagaDays
    var features: ClusterFeatures
    var sleepers: SagaSleepers
    var commands: SagaCommands
    var registry: SagaRegistry
    var clock: DatabaseClock
    /// What this process can go on with; `nil`: its definitions know no sites.
    var sites: Sites?
    /// Whether this process has a share of a site's calls: with more replicas than calls some have none, and take none of its sagas.
    var mayCall: @Sendable (String) -> Bool
    /// Nothing is to be taken up (`SagaRuntime.holdAdoption`).
    var isHeld: @Sendable () -> Bool
    var interval: Duration
    var maximumInFlight: Int
    /// Nobody knows which backends wrote for a fenced instance: they are found by what they hold.
    var isTransactionPooled: Bool
    var logger: Logger
    private let statements = LeafStatements()
    private let left = LeftSagas()

    init(
        lease: InstanceLease, worker: SagaWorker, pool: PostgresPool, reader: SagaReader, days: SagaDays,
        features: ClusterFeatures, sleepers: SagaSleepers, commands: SagaCommands, registry: SagaRegistry,
        clock: DatabaseClock, sites: Sites?, mayCall: @escaping @Sendable (String) -> Bool,
        isHeld: @escaping @Sendable () -> Bool, interval: Duration,
        maximumInFlight: Int,
        isTransactionPooled: Bool, logger: Logger
    ) {
        self.lease = lease
        self.worker = worker
        self.pool = pool
        self.reader = reader
        self.days = days
        self.features = features
        self.sleepers = sleepers
        self.commands = commands
        self.registry = registry
        self.clock = clock
        self.sites = sites
        self.mayCall = mayCall
        self.isHeld = isHeld
        self.interval = interval
        self.maximumInFlight = maximumInFlight
        self.isTransactionPooled = isTransactionPooled
        self.logger = logger
    }

    /// Two loops: one takes up in batches, the other, beside it, what has to run alone.
    func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask { await self.repeatedly { try await self.sweep() } }
            group.addTask { await self.repeatedly { try await self.sweepAlone() } }
        }
    }

    private func repeatedly(_ sweep: () async throws -> Void) async {
        while !Task.isCancelled, !self.lease.isFenced {
            do {
                if self.lease.isTrusted, !self.isHeld() { try await sweep() }
            } catch is CancellationError {
                return
            } catch {
                self.logger.debug("[SAGA] the sweep failed, and is repeated: \(error)")
            }
            try? await self.clock.surroundings.sleep(for: self.interval)
        }
    }

    /// What can't be recorded now is with the next sweep, and keeps nobody from being taken up.
    private func recordQuarantine() async {
        if Mutant.quarantineIsNotTold.isActive { return }
        let quarantined = self.worker.newlyQuarantined
        do throws(PostgresError) {
            try await self.quarantine.record(quarantined, owner: self.lease.instanceID)
            self.worker.quarantineIsKnown(quarantined.keys)
        } catch {
            self.logger.log(.error, cause: "adoption.quarantine", "[SAGA] can't record what is in quarantine: \(error)")
        }
    }

    private func sweep() async throws {
        await self.recordQuarantine()
        self.left.forget { self.features.isPublished(.events(format: $0)) }
        await self.leaveNewer()
        try await self.lease.fenceDeadInstances(using: self.pool)
        if self.isTransactionPooled {
            for leaf in self.days.open() {
                let statement = self.statements.statement("saga_end_holders", on: leaf, Self.endHolders)
                _ = try await self.pool.run(SQLQuery(statement))
            }
        }
        var free = self.limit - self.worker.count
        if free <= 0 { return }
        for leaf in try await self.leaves(for: .together) {
            var limit = min(free, Self.batchSize)
            while limit > 0, !Task.isCancelled {
                let claimed = try await self.claim(.together, on: leaf, limit: limit)
                for (machine, secrets) in try await self.machines(claimed) {
                    _ = self.worker.takeUp(machine, secrets: secrets)
                }
                free -= claimed.count
                limit = claimed.isEmpty ? 0 : min(free, Self.batchSize)
            }
        }
        // A dependency is looked at once a sweep: what was woken for it has to show whether it is back.
        var isFirst = true
        while free > 0, !Task.isCancelled {
            let woken = try await self.wake(limit: min(free, SagaSleepers.batchSize), looksAtDependencies: isFirst)
            if woken == 0 { return }
            free -= woken
            isFirst = false
        }
    }

    /// Goes on with sagas that slept.
    ///
    /// - Returns: how many were woken.
    private func wake(limit: Int, looksAtDependencies: Bool) async throws -> Int {
        let woken = try await self.sleepers.wake(
            limit: limit,
            by: SagaSleepers.Reach(
                owner: self.lease.instanceID, definitions: self.registry.all.map { ($0.type, $0.version) },
                sites: self.callableSites, newer: Array(self.left.ids), quarantined: Array(self.worker.quarantinedIDs)),
            isHeld: { self.worker.handle($0) != nil }, rate: looksAtDependencies ? { self.worker.rate($0) } : nil)
        if !woken.isEmpty { FaultPoint.hit("wake.after") }
        let claims = woken.map {
            Claim(
                id: $0.id, version: $0.version, adoptions: $0.adoptions, adoptionsBefore: $0.adoptions,
                isUnsent: $0.isUnsent, wasQuarantined: $0.wasQuarantined,
                awakening: $0.awakening)
        }
        for (machine, secrets) in try await self.machines(claims) { _ = self.worker.takeUp(machine, secrets: secrets) }
        return woken.count
    }

    /// What was taken up too often runs one after the other, so that whoever crashes the server is told apart from those
    /// that were merely there. Those that wait are not claimed, so that they count no adoption, and another replica may
    /// have them.
    ///
    /// Progress clears a count and makes room for the next. A call may last minutes, and many may have to run alone, so the
    /// next one starts after a moment: a crash then names the few that were under way. The last time, before it would park, a
    /// saga is truly alone, for longer; its turn comes once no other is left, so that those that have most likely crashed the
    /// server keep nobody waiting.
    private func sweepAlone() async throws {
        // First let what was taken up at the same time make its progress, which clears its count.
        try await self.clock.surroundings.sleep(for: Self.moment)
        var underWay: [Trial] = []
        while self.worker.count < self.limit, !Task.isCancelled {
            if let trial = try await self.begin(.afterAnother) {
                await trial.wait(limit: Self.moment)
                underWay.append(trial)
                continue
            }
            for trial in underWay {
                await trial.wait(limit: trial.patience - (self.clock.surroundings.now - trial.start))
            }
            underWay = []
            guard let trial = try await self.begin(.lastTime) else { return }
            await trial.wait(limit: trial.patience)
        }
    }

    /// Ends transactions that have stood still for seconds with a row of a fenced instance written: its process was stopped
    /// in mid-pipeline, where no time-out of PostgreSQL applies. An uncommitted writer's id is the row's xmax.
    private static func endHolders(_ leaf: SagaLeaf) -> String {
        """
        SELECT count(pg_terminate_backend(a.pid))
        FROM \(leaf.state) s, saga_instance o, pg_stat_activity a
        WHERE s.status IN ('RUNNING', 'COMPENSATING') AND o.instance_id = s.owner AND o.fenced
            AND a.backend_xid = s.xmax AND a.state_change < saga_now() - interval '3 seconds'
        """
    }

    /// A saga that was taken up to see whether it makes progress.
    private struct Trial {
        var handle: SagaHandle
        /// The sequence of its adoption.
        var adopted: Int
        /// As long as its longest call, and no longer than `longestMoment`.
        var patience: Duration
        var start: BootTime
        var deadlines: Deadlines

        /// Until it has made progress, or has ended here.
        func wait(limit: Duration) async {
            guard limit > .zero else { return }
            _ = await Race.run(limit: limit, self.deadlines) {
                await self.handle.wait(until: .event(after: self.adopted))
            } meanwhile: {
            }
        }
    }

    /// Takes up the next saga of a turn; nil if there is none, or this instance stops: its worker then takes nothing, and a
    /// row of its own may be claimed as often as one likes.
    private func begin(_ turn: Turn) async throws -> Trial? {
        while !Task.isCancelled {
            var claimed: [Claim] = []
            for leaf in try await self.leaves(for: turn) where claimed.isEmpty {
                claimed = try await self.claim(turn, on: leaf, limit: 1)
            }
            if claimed.isEmpty { return nil }
            for (machine, secrets) in try await self.machines(claimed) {
                self.logger.log(
                    .warning, cause: "adoption.alone",
                    "[SAGA] running alone\(turn == .lastTime ? " for the last time" : "") after \(machine.adoptions) adoptions",
                    metadata: ["saga_id": "\(machine.snapshot.id)"])
                guard let handle = self.worker.takeUp(machine, secrets: secrets) else { continue }
                return Trial(
                    handle: handle, adopted: machine.snapshot.lastSequence + 1,
                    patience: min(machine.longestCall, Self.longestMoment),
                    start: self.clock.surroundings.now, deadlines: self.worker.deadlines)
            }
        }
        return nil
    }

    /// How a saga is taken up, by its count of adoptions without progress.
    private enum Turn: String {
        /// In batches: what has hardly been taken up before, and what only has to be parked.
        case together
        /// Alone, but for what was taken up a moment before and is still under way.
        case afterAnother
        /// Truly alone; the next time it parks.
        case lastTime
    }

    private var quarantine: SagaQuarantine { SagaQuarantine(pool: self.pool) }

    private struct Claim {
        var id: SagaID
        var version: Int
        /// Without progress, this one included. One from nobody (owner 0: it was given back) doesn't count, nor one of this
        /// instance's own or of one that came back, which have evidently survived it.
        var adoptions: Int
        /// The same before this one.
        var adoptionsBefore: Int
        /// Whoever gave it back said that its intents are unsent.
        var isUnsent: Bool
        /// Others could not go on with it.
        var wasQuarantined: Bool
        /// It slept.
        var awakening: SagaMachine.Awakening?
    }

    /// Rows that may be taken: those of fenced instances (or of nobody), and this instance's own that have stood still and
    /// that it does not hold. A saga may be inserted between the look at what is held and this statement, so an own
    /// row counts as left alone only after a while. Which of the two loops may take a row depends on its count once taken,
    /// which its own claim doesn't change: no loop takes what the other has claimed and not yet taken up. What is in quarantine
    /// is tried by each process once ($7: those that this one has tried); what newer programs read is left to them ($8).
    ///
    /// The version rises by two: a flush whose fate is looked up later must never take this for its own commit, which
    /// raises it by one. The adoption is counted here, before anything of the saga is read: what kills the server before its
    /// first record is told apart like everything else.
    ///
    /// Unsent intents stay unsent: whoever has claimed a saga calls nobody before its first record, which raises the version.
    private static func claim(_ leaf: SagaLeaf) -> String {
        """
        WITH taken AS (
            SELECT s.saga_id, c.adoptions, s.adoptions AS before
            \(Self.claimable(leaf))
            ORDER BY s.adoptions, s.saga_id
            LIMIT $10
            FOR UPDATE OF s SKIP LOCKED
        )
        UPDATE \(leaf.state) s
        SET owner = $1, version = s.version + 2, adoptions = least(t.adoptions, 1000),
            unsent_version = CASE WHEN s.unsent_version = s.version THEN s.version + 2 END
        FROM taken t
        WHERE s.saga_id = t.saga_id
        RETURNING s.saga_id, s.version, s.adoptions::int, coalesce(s.unsent_version = s.version, false),
            EXISTS (SELECT 1 FROM saga_quarantine q WHERE q.saga_id = s.saga_id), t.before::int
        """
    }

    /// The rows of a leaf that may be taken now, as s and c.
    private static func claimable(_ leaf: SagaLeaf) -> String {
        """
        FROM \(leaf.state) s, LATERAL (
            SELECT s.adoptions + (s.owner NOT IN (0, $1) AND NOT EXISTS (
                SELECT 1 FROM saga_instance o WHERE o.instance_id = s.owner AND o.survived))::int AS adoptions) c
        WHERE s.status IN ('RUNNING', 'COMPENSATING')
            AND s.owner >= 0
            AND NOT EXISTS (SELECT 1 FROM saga_instance o WHERE o.instance_id = s.owner AND NOT o.fenced
                AND o.instance_id <> $1)
            AND (s.owner <> $1 OR (s.updated_at < $5 AND NOT s.saga_id = ANY ($2::text[])))
            AND (s.saga_type, s.definition_version) IN (SELECT * FROM unnest($3::text[], $4::int[]))
            AND (s.site IS NULL OR s.site = ANY ($9::text[]))
            AND NOT (s.saga_id = ANY ($7::text[])
                AND EXISTS (SELECT 1 FROM saga_quarantine q WHERE q.saga_id = s.saga_id))
            AND NOT s.saga_id = ANY ($8::text[])
            AND CASE WHEN c.adoptions <= \(Self.quarantineFrom) THEN '\(Turn.together.rawValue)'
                WHEN c.adoptions > \(Self.poisonFrom) THEN '\(Turn.together.rawValue)'
                WHEN c.adoptions = \(Self.poisonFrom) THEN '\(Turn.lastTime.rawValue)'
                ELSE '\(Turn.afterAnother.rawValue)' END = $6
            AND EXISTS (SELECT 1 FROM saga_instance m WHERE m.instance_id = $1 AND NOT m.fenced
                AND m.lease_until > saga_now())
        """
    }

    private static func claimable(_ group: SagaLeafGroup) -> String {
        group.leaves.map { leaf in
            "SELECT \(leaf.day ?? -1)::bigint WHERE EXISTS (SELECT 1 \(Self.claimable(leaf)))"
        }.joined(separator: "\nUNION ALL\n")
    }

    /// What says which rows may be taken.
    private func parameters(_ turn: Turn, on leaves: [SagaLeaf]) -> SQLParameters {
        /// Ids of these leaves.
        func here(_ ids: Set<SagaID>) -> [String] {
            let days = Set(leaves.compactMap(\.day))
            if days.count < leaves.count { return ids.map(\.rawValue) }
            return ids.filter { days.contains(PartitionKeeper.day(of: $0)) }.map(\.rawValue)
        }
        var parameters = SQLParameters()
        parameters.append(self.lease.instanceID)
        parameters.append(array: here(self.worker.heldIDs))
        parameters.append(array: self.registry.all.map(\.type))
        parameters.append(array: self.registry.all.map { Int32(clamping: $0.version) })
        parameters.append(self.clock.now() - Self.leftAloneAfter)
        parameters.append(turn.rawValue)
        parameters.append(array: here(self.worker.quarantinedIDs))
        parameters.append(array: here(self.left.ids))
        parameters.append(array: self.callableSites)
        return parameters
    }

    /// More than new sagas may fill: those that are there already find room however many come.
    private var limit: Int { self.maximumInFlight + max(self.maximumInFlight / 8, 1) }

    private var callableSites: [String] {
        if Mutant.claimsAskForNoSite.isActive || Mutant.callsGoToWhatIsHere.isActive {
            return self.sites?.servedByAny ?? []
        }
        return self.sites?.served.filter(self.mayCall) ?? []
    }

    /// The leaves on which something may be taken, the oldest first. One statement looks at several days: with nothing to take,
    /// that is all that a sweep costs.
    private func leaves(for turn: Turn) async throws(PostgresError) -> [SagaLeaf] {
        var leaves: [SagaLeaf] = []
        for group in SagaLeafGroup.groups(of: self.days.open()) {
            let statement = self.statements.statement("saga_claimable", over: group, Self.claimable)
            let query = SQLQuery(statement, self.parameters(turn, on: group.leaves))
            do throws(PostgresError) {
                for row in try await self.pool.run(query) {
                    let day = try row.int64(0)
                    leaves.append(day < 0 ? .parent : SagaLeaf(day: day))
                }
            } catch {
                // The next sweep asks the parents.
                if error.isMissingTable { self.days.forget(group.leaves) }
                throw error
            }
        }
        return leaves.sorted { $0.day ?? 0 < $1.day ?? 0 }
    }

    private func claim(_ turn: Turn, on leaf: SagaLeaf, limit: Int) async throws -> [Claim] {
        var parameters = self.parameters(turn, on: [leaf])
        parameters.append(Int64(limit))
        let rows: SQLRows
        do throws(PostgresError) {
            let statement = self.statements.statement("saga_claim", on: leaf, Self.claim)
            rows = try await self.pool.run(SQLQuery(statement, parameters))
        } catch {
            if error.isMissingTable { self.days.forget([leaf]) }
            throw error
        }
        var claims: [Claim] = []
        for row in rows {
            guard let id = SagaID(try row.text(0)) else { continue }
            claims.append(
                Claim(
                    id: id, version: Int(try row.int32(1)), adoptions: Int(try row.int32(2)),
                    adoptionsBefore: Int(try row.int32(5)), isUnsent: try row.bool(3), wasQuarantined: try row.bool(4)))
        }
        if !claims.isEmpty { FaultPoint.hit("claim.after") }
        return claims
    }

    /// The machines of what was claimed, with their secrets. What can't be read goes into quarantine.
    private func machines(_ claimed: [Claim]) async throws -> [(machine: SagaMachine, secrets: [UInt8])] {
        if claimed.isEmpty { return [] }
        let claims = claimed.filter { $0.adoptions <= Self.unreadFrom }
        for claim in claimed where claim.adoptions > Self.unreadFrom {
            self.logger.critical(
                "[SAGA] quarantined unread: servers that took it up were killed before they could park it",
                metadata: ["saga_id": "\(claim.id)", "adoptions": "\(claim.adoptions)"])
            self.worker.quarantine(claim.id, .unread)
        }
        let histories = try await self.reader.decodable(claims.map(\.id))
        let secrets = try await self.secrets(claims.map(\.id))
        let commands = try await self.commands.open(of: claims.map(\.id))
        var machines: [(machine: SagaMachine, secrets: [UInt8])] = []
        var unserved: [(claim: Claim, missing: String)] = []
        for claim in claims {
            switch histories[claim.id] {
            case .success(let history):
                guard let definition = self.registry[history.snapshot.type, history.snapshot.definitionVersion] else {
                    self.logger.critical(
                        "[SAGA] quarantined: its events and its row name different definitions",
                        metadata: ["saga_id": "\(claim.id)"])
                    self.worker.quarantine(claim.id, .unreadable)
                    continue
                }
                if let missing = definition.missing(history.snapshot.request, history.snapshot.outputs) {
                    unserved.append((claim, missing))
                    continue
                }
                let secrets = secrets[claim.id] ?? []
                var machine = SagaMachine(
                    definition: definition, snapshot: history.snapshot, version: claim.version,
                    adoptions: claim.adoptions, isPoisoned: claim.adoptions > Self.poisonFrom,
                    isUnsent: claim.isUnsent, slept: claim.awakening, secrets: secrets, now: self.clock.moment(),
                    random: { [surroundings = self.clock.surroundings] in surroundings.fraction() })
                machine.receive(commands[claim.id] ?? [])
                machines.append((machine, secrets))
            case .failure(let error):
                if let format = error.newerFormat, self.features.isPublished(.events(format: format)) {
                    self.logger.log(
                        .notice, cause: "adoption.newer",
                        "[SAGA] left to the replicas that read events of format \(format)",
                        metadata: ["saga_id": "\(claim.id)"])
                    self.left.add(
                        LeftSagas.Newcomer(
                            id: claim.id, adoptions: claim.adoptionsBefore, isUnsent: claim.isUnsent), format: format)
                    continue
                }
                self.logger.critical(
                    "[SAGA] quarantined: its rows can't be read",
                    metadata: ["saga_id": "\(claim.id)", "error": "\(error)"])
                self.worker.quarantine(claim.id, .unreadable)
            case nil:
                self.logger.critical(
                    "[SAGA] quarantined: it has no events", metadata: ["saga_id": "\(claim.id)"])
                self.worker.quarantine(claim.id, .unreadable)
            }
        }
        await self.leaveNewer()
        let readable = Set(machines.map(\.machine.snapshot.id))
        try await self.quarantine.end(claims.filter { $0.wasQuarantined && readable.contains($0.id) }.map(\.id))
        try await self.leaveUnserved(unserved)
        return machines
    }

    private static func leaveUnserved(_ leaf: SagaLeaf) -> String {
        """
        WITH given AS (
            UPDATE \(leaf.state) s
            SET owner = 0, version = s.version + 2, site = q.site,
                unsent_version = CASE WHEN q.is_unsent THEN s.version + 2 END
            FROM unnest($2::text[], $3::text[], $4::bool[]) AS q(saga_id, site, is_unsent)
            WHERE s.saga_id = q.saga_id AND s.owner = $1 AND s.status IN ('RUNNING', 'COMPENSATING', 'PARKED')
            RETURNING s.*
        )
        \(Self.commandsOfParked)
        """
    }

    /// What is parked was woken by a command, which is for others now.
    private static let commandsOfParked = SagaSleepers.makeDue("given WHERE status = 'PARKED'")

    /// Gives back what this process can't go on with, and writes down what it lacks: from then on only those claim it who have
    /// that. (Sagas of version 1 say it nowhere but in their events.)
    private func leaveUnserved(_ sagas: [(claim: Claim, missing: String)]) async throws(PostgresError) {
        if sagas.isEmpty { return }
        for (claim, missing) in sagas {
            self.logger.log(
                .notice, cause: "adoption.missing \(missing)",
                "[SAGA] left to others: this server doesn't serve \(missing)", metadata: ["saga_id": "\(claim.id)"])
        }
        _ = try await self.days.reading(sagas, of: \.claim.id) { parts throws(PostgresError) in
            try await self.pool.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(self.lease.instanceID)
                    parameters.append(array: part.elements.map(\.claim.id.rawValue))
                    parameters.append(array: part.elements.map(\.missing))
                    parameters.append(array: part.elements.map(\.claim.isUnsent))
                    return SQLQuery(
                        self.statements.statement("saga_leave_unserved", on: part.leaf, Self.leaveUnserved), parameters)
                })
        }
    }

    private static func giveBack(_ leaf: SagaLeaf) -> String {
        """
        UPDATE \(leaf.state) s
        SET owner = 0, version = s.version + 2, unsent_version = CASE WHEN q.is_unsent THEN s.version + 2 END
        FROM unnest($2::text[], $3::bool[]) AS q(saga_id, is_unsent)
        WHERE s.saga_id = q.saga_id AND s.owner = $1 AND s.status IN ('RUNNING', 'COMPENSATING')
        """
    }

    /// Lets others have sagas that this instance has stopped driving, without waiting for its lease, and says which of them have
    /// sent nothing.
    ///
    /// - Returns: false if that could not be written. What stays is theirs once the lease is released, and then in doubt.
    func giveBack(_ sagas: [SagaWorker.Quiet]) async -> Bool {
        if sagas.isEmpty { return true }
        let results = try? await self.days.reading(sagas, of: \.id) { parts throws(PostgresError) in
            try await self.pool.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(self.lease.instanceID)
                    parameters.append(array: part.elements.map(\.id.rawValue))
                    parameters.append(array: part.elements.map(\.isUnsent))
                    return SQLQuery(
                        self.statements.statement("saga_give_back", on: part.leaf, Self.giveBack), parameters)
                })
        }
        return results != nil
    }

    /// As if this program had never looked at it.
    private static func leave(_ leaf: SagaLeaf) -> String {
        """
        WITH given AS (
            UPDATE \(leaf.state) s
            SET owner = 0, version = s.version + 2, unsent_version = CASE WHEN q.is_unsent THEN s.version + 2 END,
                adoptions = q.adoptions
            FROM unnest($2::text[], $3::bool[], $4::int[]) AS q(saga_id, is_unsent, adoptions)
            WHERE s.saga_id = q.saga_id AND s.owner = $1 AND s.status IN ('RUNNING', 'COMPENSATING', 'PARKED')
            RETURNING s.*
        )
        \(Self.commandsOfParked)
        """
    }

    /// Lets the replicas that can read them have sagas of a newer format. What can't be written now is with the next sweep.
    private func leaveNewer() async {
        let newcomers = self.left.takeNewcomers()
        if newcomers.isEmpty { return }
        let results = try? await self.days.reading(newcomers, of: \.id) { parts throws(PostgresError) in
            try await self.pool.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(self.lease.instanceID)
                    parameters.append(array: part.elements.map(\.id.rawValue))
                    parameters.append(array: part.elements.map(\.isUnsent))
                    parameters.append(array: part.elements.map { Int32(clamping: $0.adoptions) })
                    return SQLQuery(self.statements.statement("saga_leave", on: part.leaf, Self.leave), parameters)
                })
        }
        if results == nil { self.left.putBack(newcomers) }
    }

    private static let survive = SQLStatement(
        "instance_survive", "UPDATE saga_instance SET survived = true WHERE instance_id = $1 AND fenced")
    private static func forgive(_ leaf: SagaLeaf) -> String {
        """
        UPDATE \(leaf.state) s SET adoptions = s.adoptions - 1 FROM unnest($2::text[]) AS q(saga_id)
        WHERE s.saga_id = q.saga_id AND s.owner <> $1 AND s.adoptions > 0 AND s.status IN ('RUNNING', 'COMPENSATING')
        """
    }

    /// This instance was fenced, and its process lives (it was stopped, or cut off): its sagas have killed nobody. Those that others
    /// have taken up already get their count back, those to come are not counted.
    ///
    /// - Returns: false if that could not be written.
    func forgive(_ ids: [SagaID]) async -> Bool {
        if ids.isEmpty { return true }
        var instance = SQLParameters()
        instance.append(self.lease.instanceID)
        let survive = SQLQuery(Self.survive, instance)
        let results = try? await self.days.reading(ids, of: \.self) { [instance] parts throws(PostgresError) in
            try await self.pool.transaction(
                [survive]
                    + parts.map { part in
                        var sagas = instance
                        sagas.append(array: part.elements.map(\.rawValue))
                        return SQLQuery(
                            self.statements.statement("saga_forgive", on: part.leaf, Self.forgive), sagas)
                    })
        }
        return results != nil
    }

    private static let secretsQuery = SQLStatement(
        "saga_secrets",
        "SELECT x.saga_id, x.secrets FROM unnest($1::text[]) AS i(saga_id) JOIN saga_secret x ON x.saga_id = i.saga_id")

    private func secrets(_ ids: [SagaID]) async throws -> [SagaID: [UInt8]] {
        var parameters = SQLParameters()
        parameters.append(array: ids.map(\.rawValue))
        var secrets: [SagaID: [UInt8]] = [:]
        for row in try await self.pool.run([SQLQuery(Self.secretsQuery, parameters)])[0] {
            if let id = SagaID(try row.text(0)) { secrets[id] = try row.bytes(1) }
        }
        return secrets
    }
}
