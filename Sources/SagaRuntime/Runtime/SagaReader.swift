import Synchronization

/// Reads sagas from their event rows; what is asked for while a query runs is folded into the next one.
///
/// Queries are shared, decoding is not: each caller folds its own saga's rows, in its own task, so that the next query
/// is under way meanwhile.
final class SagaReader: Sendable {
    /// Sagas of one query.
    private static let maximumIDs = 256
    /// Queries under way at once.
    private static let maximumQueries = 2

    private typealias Rows = Result<[EventRow], SagaRuntimeError>

    private struct Waiter {
        var id: SagaID
        var continuation: CheckedContinuation<Rows, Never>
    }

    private struct State {
        var waiting: [Waiter] = []
        var running = 0
    }

    private let pool: PostgresPool
    var surroundings: Surroundings { self.pool.surroundings }
    private let days: SagaDays
    private let statements = LeafStatements()
    private let plans: SagaPlans
    private let state = Mutex(State())

    init(pool: PostgresPool, days: SagaDays, plans: SagaPlans) {
        self.pool = pool
        self.days = days
        self.plans = plans
    }

    // MARK: One saga

    /// The saga's history; `nil` if there is no such saga.
    func history(_ id: SagaID) async throws(SagaRuntimeError) -> SagaHistory? {
        let rows = try await self.rows(id)
        if rows.isEmpty { return nil }
        do throws(StoredDataError) {
            return try await self.decoded(id, rows)
        } catch {
            throw .unreadable(error.message)
        }
    }

    /// The saga's state alone; `nil` if there is no such saga.
    func snapshot(_ id: SagaID) async throws(SagaRuntimeError) -> SagaSnapshot? {
        let rows = try await self.rows(id)
        if rows.isEmpty { return nil }
        do throws(StoredDataError) {
            return try await self.shown(id, rows)
        } catch {
            throw .unreadable(error.message)
        }
    }

    /// The saga's state as it is shown.
    private func shown(_ id: SagaID, _ rows: [EventRow]) async throws(StoredDataError) -> SagaSnapshot {
        var snapshot = try await self.withPlans { stepNames throws(StoredDataError) in
            try SagaSnapshot(id: id, rows: rows, stepNames: stepNames)
        }
        snapshot.isQuarantined = !snapshot.status.isTerminal && rows.contains { $0.isQuarantined }
        // What is parked waits for nothing but somebody who obeys its command.
        if !snapshot.status.isTerminal { snapshot.sleep = rows.first?.wait }
        return snapshot
    }

    /// The saga's rows by ascending sequence, from a query that is shared with whoever asks at the same time.
    private func rows(_ id: SagaID) async throws(SagaRuntimeError) -> [EventRow] {
        let result: Rows = await withCheckedContinuation { continuation in
            let startsQuery = self.state.withLock { state in
                state.waiting.append(Waiter(id: id, continuation: continuation))
                guard state.running < Self.maximumQueries else { return false }
                state.running += 1
                return true
            }
            if startsQuery { Task { await self.work() } }
        }
        return try result.get()
    }

    private func work() async {
        while true {
            let waiters: [Waiter] = self.state.withLock { state in
                if state.waiting.isEmpty { state.running -= 1 }
                let count = min(state.waiting.count, Self.maximumIDs)
                defer { state.waiting.removeFirst(count) }
                return Array(state.waiting.prefix(count))
            }
            if waiters.isEmpty { return }
            // Whoever asks for the same saga shares its rows.
            var ids: [SagaID] = []
            var positions: [SagaID: Int] = [:]
            let positionOfWaiter = waiters.map { waiter in
                if let position = positions[waiter.id] { return position }
                positions[waiter.id] = ids.count
                ids.append(waiter.id)
                return ids.count - 1
            }
            do {
                let rows = try await self.read(ids)
                for (waiter, position) in zip(waiters, positionOfWaiter) {
                    waiter.continuation.resume(returning: .success(rows[position]))
                }
            } catch {
                for waiter in waiters { waiter.continuation.resume(returning: .failure(error)) }
            }
        }
    }

    // MARK: Many sagas

    /// The states of the sagas that there are, and what is wrong with those that can't be read.
    func snapshots(
        _ ids: [SagaID], until deadline: ContinuousClock.Instant? = nil
    ) async throws(SagaRuntimeError) -> (found: [SagaID: SagaSnapshot], unreadable: [SagaID: String]) {
        var found: [SagaID: SagaSnapshot] = [:]
        var unreadable: [SagaID: String] = [:]
        var rest = ids[...]
        while !rest.isEmpty {
            let slice = Array(rest.prefix(Self.maximumIDs))
            rest = rest.dropFirst(slice.count)
            for (id, rows) in zip(slice, try await self.read(slice, until: deadline)) where !rows.isEmpty {
                do throws(StoredDataError) {
                    found[id] = try await self.shown(id, rows)
                } catch {
                    unreadable[id] = error.message
                }
            }
        }
        return (found, unreadable)
    }

    private static func outlines(_ leaf: SagaLeaf) -> String {
        """
        SELECT s.saga_id, s.saga_type, s.definition_version, s.status::text, s.step_index, s.current_step,
            s.last_sequence, s.created_at, s.updated_at, s.timeout_at, s.completed_at, e.user_id, e.resource_id,
            e.batch_id, e.tenant_id, q.saga_id IS NOT NULL
        FROM unnest($1::text[]) AS i(saga_id)
        JOIN \(leaf.state) s ON s.saga_id = i.saga_id
        LEFT JOIN saga_quarantine q ON q.saga_id = i.saga_id
        LEFT JOIN \(leaf.event) e ON e.saga_id = s.saga_id AND e.user_id IS NOT NULL
        """
    }

    /// What the rows say of sagas whose events can't be read (damaged, or written by a newer binary).
    func outlines(_ ids: [SagaID]) async throws(SagaRuntimeError) -> [SagaID: SagaSnapshot] {
        var outlines: [SagaID: SagaSnapshot] = [:]
        do {
            let rows = try await self.days.reading(ids, of: \.self) { parts throws(PostgresError) in
                try await self.pool.run(
                    parts.map { part in
                        var parameters = SQLParameters()
                        parameters.append(array: part.elements.map(\.rawValue))
                        return SQLQuery(
                            self.statements.statement("saga_outlines", on: part.leaf, Self.outlines), parameters)
                    })
            }
            for row in rows.joined() {
                guard let id = SagaID(try row.text(0)), let status = SagaStatus(name: try row.text(3)) else { continue }
                var outline = SagaSnapshot(
                    id: id, type: try row.text(1), definitionVersion: Int(try row.int16(2)), steps: [],
                    userID: try row.optionalText(11) ?? "", tenantID: try row.optionalText(14) ?? "",
                    resourceID: try row.optionalUUID(12) ?? "", requestID: "",
                    batchID: try row.optionalText(13) ?? "", createdAt: try row.timestamp(7),
                    updatedAt: try row.timestamp(8), deadline: try row.timestamp(9), request: [], hasSecrets: false)
                outline.status = status
                outline.stepIndex = Int(try row.int32(4))
                outline.outlinedStep = try row.text(5)
                outline.lastSequence = Int(try row.int32(6))
                outline.completedAt = try row.optionalTimestamp(10)
                outline.isQuarantined = status.isTerminal ? false : try row.bool(15)
                outlines[id] = outline
            }
        } catch {
            throw .database(error)
        }
        return outlines
    }

    /// Whole histories; a saga whose rows don't decode does not spoil the others.
    func decodable(_ ids: [SagaID]) async throws(SagaRuntimeError) -> [SagaID: Result<SagaHistory, StoredDataError>] {
        var histories: [SagaID: Result<SagaHistory, StoredDataError>] = [:]
        for (id, rows) in zip(ids, try await self.read(ids)) where !rows.isEmpty {
            do throws(StoredDataError) {
                histories[id] = .success(try await self.decoded(id, rows))
            } catch {
                histories[id] = .failure(error)
            }
        }
        return histories
    }

    // MARK: Rows

    private static func rows(_ leaf: SagaLeaf) -> String {
        """
        SELECT i.position, e.sequence, e.user_id, e.resource_id, e.batch_id, e.events, e.output, e.tenant_id,
            q.saga_id IS NOT NULL, w.reason, w.dependency, w.due_at
        FROM unnest($1::text[], $2::int[]) AS i(saga_id, position)
        LEFT JOIN saga_quarantine q ON q.saga_id = i.saga_id
        LEFT JOIN saga_waiting w ON w.saga_id = i.saga_id
        JOIN \(leaf.event) e ON e.saga_id = i.saga_id
        """
    }

    /// The rows of each saga by ascending sequence, in the order of `ids`; none for a saga that there isn't.
    private func read(
        _ ids: [SagaID], until deadline: ContinuousClock.Instant? = nil
    ) async throws(SagaRuntimeError) -> [[EventRow]] {
        var rows = [[EventRow]](repeating: [], count: ids.count)
        do {
            let results = try await self.days.reading(Array(ids.enumerated()), of: \.element) {
                parts throws(PostgresError) in
                try await self.pool.run(
                    parts.map { part in
                        var parameters = SQLParameters()
                        parameters.append(array: part.elements.map(\.element.rawValue))
                        parameters.append(array: part.elements.map { Int32(clamping: $0.offset) })
                        return SQLQuery(self.statements.statement("saga_rows", on: part.leaf, Self.rows), parameters)
                    }, until: deadline)
            }
            for row in results.joined() {
                let position = Int(try row.int32(0))
                guard rows.indices.contains(position) else { continue }
                rows[position].append(
                    EventRow(
                        lastSequence: Int(try row.int32(1)), userID: try row.optionalText(2),
                        tenantID: try row.optionalText(7), resourceID: try row.optionalUUID(3),
                        batchID: try row.optionalText(4),
                        events: try row.bytes(5), databaseOutput: try row.optionalText(6),
                        isQuarantined: try row.bool(8), wait: try Self.wait(row)))
            }
        } catch {
            throw .database(error)
        }
        // The index gives them in order; nothing in the statement promises it.
        for position in rows.indices where !Self.isSorted(rows[position]) {
            rows[position].sort { $0.lastSequence < $1.lastSequence }
        }
        return rows
    }

    private static func wait(_ row: SQLRow) throws(PostgresError) -> SagaWait? {
        guard let reason = try row.optionalText(9).flatMap(SagaWait.Reason.init) else { return nil }
        // A command's row is due at once, or when others are to try.
        if reason == .command { return SagaWait(reason: reason) }
        return SagaWait(
            reason: reason, dependency: try row.optionalText(10), until: try row.optionalTimestamp(11))
    }

    private static func isSorted(_ rows: [EventRow]) -> Bool {
        zip(rows, rows.dropFirst()).allSatisfy { $0.lastSequence < $1.lastSequence }
    }

    private func decoded(_ id: SagaID, _ rows: [EventRow]) async throws(StoredDataError) -> SagaHistory {
        try await self.withPlans { stepNames throws(StoredDataError) in
            try SagaHistory(id: id, rows: rows, stepNames: stepNames)
        }
    }

    /// Decodes by the plans that are known; if the saga's isn't, again by those that the database has now.
    private func withPlans<Value>(
        _ decode: ((String, Int) -> [String]?) throws(StoredDataError) -> Value
    ) async throws(StoredDataError) -> Value {
        let stepNames = { [plans] (type: String, version: Int) in plans[type, version]?.stepNames }
        do throws(StoredDataError) {
            return try decode(stepNames)
        } catch {
            guard error.isOfUnknownPlan, (try? await self.plans.load()) != nil else { throw error }
            return try decode(stepNames)
        }
    }
}
