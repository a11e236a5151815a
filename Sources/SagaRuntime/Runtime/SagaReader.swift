import Synchronization

/// Reads sagas from their event rows; what is asked for while a query runs is folded into the next one.
final class SagaReader: Sendable {
    /// Sagas of one query.
    private static let maximumIDs = 256
    /// Queries under way at once.
    private static let maximumQueries = 2

    private struct Waiter {
        var id: SagaID
        var continuation: CheckedContinuation<Result<SagaHistory?, SagaRuntimeError>, Never>
    }

    private struct State {
        var waiting: [Waiter] = []
        var running = 0
    }

    private let pool: PostgresPool
    private let stepNames: @Sendable (String, Int) -> [String]?
    private let state = Mutex(State())

    init(pool: PostgresPool, definitions: SagaRegistry) {
        self.pool = pool
        self.stepNames = { type, version in definitions[type, version]?.steps.map(\.name) }
    }

    /// The saga's history; `nil` if there is no such saga.
    func history(_ id: SagaID) async throws(SagaRuntimeError) -> SagaHistory? {
        let result = await withCheckedContinuation { continuation in
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

    func histories(_ ids: [SagaID]) async throws(SagaRuntimeError) -> [SagaID: SagaHistory] {
        var histories: [SagaID: SagaHistory] = [:]
        var rest = ids[...]
        while !rest.isEmpty {
            let slice = Array(rest.prefix(Self.maximumIDs))
            rest = rest.dropFirst(slice.count)
            for (id, history) in try await self.read(slice) { histories[id] = try history.get() }
        }
        return histories
    }

    /// As `histories`, but a saga whose rows don't decode does not spoil the others.
    func decodable(_ ids: [SagaID]) async throws(SagaRuntimeError) -> [SagaID: Result<SagaHistory, SagaRuntimeError>] {
        try await self.read(ids)
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
            do {
                let histories = try await self.read(Array(Set(waiters.map(\.id))))
                for waiter in waiters {
                    switch histories[waiter.id] {
                    case .success(let history): waiter.continuation.resume(returning: .success(history))
                    case .failure(let error): waiter.continuation.resume(returning: .failure(error))
                    case nil: waiter.continuation.resume(returning: .success(nil))
                    }
                }
            } catch {
                for waiter in waiters { waiter.continuation.resume(returning: .failure(error)) }
            }
        }
    }

    private static let rows = SQLStatement(
        "saga_rows",
        """
        SELECT e.saga_id, e.sequence, e.user_id, e.resource_id, e.batch_id, e.events, e.output
        FROM unnest($1::text[]) AS i(saga_id)
        JOIN saga_event e ON e.saga_id = i.saga_id
        """)

    private func read(
        _ ids: [SagaID]
    ) async throws(SagaRuntimeError) -> [SagaID: Result<SagaHistory, SagaRuntimeError>] {
        var parameters = SQLParameters()
        parameters.append(array: ids.map(\.rawValue))
        var rows: [SagaID: [EventRow]] = [:]
        do {
            for row in try await self.pool.run([SQLQuery(Self.rows, parameters)])[0] {
                guard let id = SagaID(try row.text(0)) else { continue }
                rows[id, default: []].append(
                    EventRow(
                        lastSequence: Int(try row.int32(1)), userID: try row.optionalText(2),
                        resourceID: try row.optionalUUID(3), batchID: try row.optionalText(4),
                        events: try row.bytes(5), databaseOutput: try row.optionalText(6)))
            }
        } catch {
            throw .database(error)
        }
        return rows.reduce(into: [:]) { histories, entry in
            do {
                let sorted = entry.value.sorted { $0.lastSequence < $1.lastSequence }
                histories[entry.key] = .success(
                    try SagaHistory(id: entry.key, rows: sorted, stepNames: self.stepNames))
            } catch let error as JournalDecodingError {
                histories[entry.key] = .failure(.unreadable(error.message))
            } catch {
                histories[entry.key] = .failure(.unreadable("\(error)"))
            }
        }
    }
}
