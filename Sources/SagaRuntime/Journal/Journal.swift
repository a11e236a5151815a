import Logging
import Synchronization

/// Batches the records of many sagas into few transactions (docs/architecture.md).
///
/// Natural batching: each writer starts its next flush when its last one returned, with everything that gathered in the
/// meantime up to a cap. A record's `write` returns only once its flush is known to be committed, or known not to be.
final class Journal: Sendable {
    struct Configuration: Sendable {
        var connection: PostgresConfiguration
        /// Connections that flush in parallel.
        var writers = 2
        /// Records of one flush.
        var maximumRecords = 64
        /// New sagas that wait for their first flush; one more is refused as overload. Records of sagas that are there
        /// already are one per saga that this process drives, and never refused.
        var maximumQueuedAdmissions = 8192
    }

    /// Conflicts in a row (each may be a second of waiting for a lock) before callers of new sagas are kept waiting no longer.
    private static let patience = 10

    private struct State {
        var queue = FlushQueue<JournalEntry>()
        var idleWriters: [CheckedContinuation<Void, Never>] = []
        var isClosed = false
        /// Writers that the database can't be reached by, or that it takes nothing from.
        var stuck: Set<Int> = []
    }

    private let configuration: Configuration
    /// The instance in whose name everything is written.
    private let owner: Int64
    private let days: SagaDays
    private let statements = JournalStatements()
    private let clock: DatabaseClock
    private let surroundings: Surroundings
    private let logger: Logger
    private let observer: any SagaRuntimeObserver
    /// Told which backends write for this instance, so that whoever fences it can end them.
    private let registerBackends: @Sendable (_ writer: Int, PostgresConnection) async throws -> Void
    /// Told while the database can't be reached, or takes nothing, and records wait.
    private let unreachable: @Sendable () -> Void
    private let state = Mutex(State())

    init(
        configuration: Configuration, owner: Int64, days: SagaDays, clock: DatabaseClock, logger: Logger,
        observer: any SagaRuntimeObserver,
        registerBackends: @escaping @Sendable (_ writer: Int, PostgresConnection) async throws -> Void,
        unreachable: @escaping @Sendable () -> Void = {}
    ) {
        self.configuration = configuration
        self.owner = owner
        self.days = days
        self.clock = clock
        self.surroundings = clock.surroundings
        self.logger = logger
        self.observer = observer
        self.registerBackends = registerBackends
        self.unreachable = unreachable
    }

    /// Records waiting for a writer.
    var queued: Int { self.state.withLock { $0.queue.count } }

    /// Whether the database takes no records: it can't be reached, or answers and refuses every flush.
    var isStuck: Bool { self.state.withLock { !$0.stuck.isEmpty } }

    private func setStuck(_ isStuck: Bool, _ line: WriterLine) {
        self.state.withLock { state in
            if isStuck { state.stuck.insert(line.number) } else { state.stuck.remove(line.number) }
        }
        if isStuck { self.unreachable() }
    }

    /// Hands a record in and returns when its fate is known; that takes as long as the database is away.
    func write(_ record: SagaRecord) async -> JournalOutcome {
        await withCheckedContinuation { continuation in
            let entry = JournalEntry(record: record, continuation: continuation)
            enum Action { case none, refuse(JournalOutcome), wake(CheckedContinuation<Void, Never>) }
            let action: Action = self.state.withLock { state in
                guard !state.isClosed else { return .refuse(.fenced) }
                let importance = record.importance
                if importance == .admission,
                    state.queue.count(of: .admission) >= self.configuration.maximumQueuedAdmissions
                {
                    return .refuse(.overloaded)
                }
                state.queue.append(entry, importance)
                return state.idleWriters.popLast().map { .wake($0) } ?? .none
            }
            switch action {
            case .none: break
            case .refuse(let outcome): continuation.resume(returning: outcome)
            case .wake(let writer): writer.resume()
            }
        }
    }

    /// Runs the writers until the task is cancelled; what is still queued then ends as `fenced`.
    func run() async {
        await withTaskCancellationHandler {
            await withDiscardingTaskGroup { group in
                for writer in 0..<self.configuration.writers {
                    group.addTask { await self.write(writer) }
                }
            }
        } onCancel: {
            self.close()
        }
        self.close()
    }

    private func close() {
        let (entries, writers) = self.state.withLock { state in
            state.isClosed = true
            defer { state.idleWriters = [] }
            return (state.queue.take(.max), state.idleWriters)
        }
        for entry in entries { entry.continuation.resume(returning: .fenced) }
        for writer in writers { writer.resume() }
    }

    // MARK: One writer

    private func write(_ writer: Int) async {
        var line = WriterLine(number: writer)
        while !Task.isCancelled {
            if line.connection == nil, !(await self.connect(&line)) { continue }
            self.setStuck(false, line)
            let entries = await self.nextEntries()
            if entries.isEmpty { continue }
            let started = self.surroundings.now
            await self.flush(entries, on: &line)
            self.observer.flushed(records: entries.count, duration: self.surroundings.now - started)
        }
        await line.connection?.close()
    }

    /// A writer's connection, and the backend of the one before it, which may still be running a lost flush.
    private struct WriterLine {
        let number: Int
        var connection: PostgresConnection?
        var failures = 0
        /// Flushes lost in a row, each on a connection that could be made.
        var lostFlushes = 0
        /// Flushes in a row that had to give way to others.
        var conflicts = 0
        var lostBackend: (pid: Int32, start: Timestamp)?
    }

    private func nextEntries() async -> [JournalEntry] {
        while true {
            let entries: [JournalEntry]? = self.state.withLock { state in
                if state.queue.isEmpty { return state.isClosed ? [] : nil }
                return state.queue.take(self.configuration.maximumRecords)
            }
            if let entries { return entries }
            await withCheckedContinuation { continuation in
                let resumeNow = self.state.withLock { state in
                    guard state.queue.isEmpty, !state.isClosed else { return true }
                    state.idleWriters.append(continuation)
                    return false
                }
                if resumeNow { continuation.resume() }
            }
        }
    }

    private func connect(_ line: inout WriterLine) async -> Bool {
        do {
            let connection = try await PostgresConnection.connect(self.configuration.connection)
            try await self.registerBackends(line.number, connection)
            line.connection = connection
            line.failures = 0
            return true
        } catch {
            line.failures += 1
            self.logger.log(.warning, cause: "journal.connect", "[SAGA] the journal has no connection: \(error)")
            // A few hundred milliseconds of back-off, or one connect time-out.
            if line.failures > 2 { self.setStuck(true, line) }
            try? await self.surroundings.sleep(for: .milliseconds(min(50 << min(line.failures, 5), 1000)))
            return false
        }
    }

    // MARK: One flush

    /// Brings every entry to an end: committed, duplicate, fenced or rejected.
    private func flush(_ entries: [JournalEntry], on line: inout WriterLine) async {
        var pending = entries
        while !pending.isEmpty {
            guard !Task.isCancelled else {
                // Nobody may act on these any more; the rows tell whoever takes the sagas up.
                for entry in pending { entry.continuation.resume(returning: .fenced) }
                return
            }
            guard let connection = line.connection else {
                if await self.connect(&line) { pending = await self.settleLost(pending, on: &line) }
                continue
            }
            pending = self.inTime(pending)
            if pending.isEmpty { return }
            let batch = JournalBatch(
                owner: self.owner, entries: pending, statements: self.statements, days: self.days)
            let queries = batch.queries()
            do {
                for entry in batch.entries { FaultPoint.hit("flush.\(entry.record.kind.rawValue).before") }
                let results = try await connection.transaction(queries.map(\.query))
                line.lostFlushes = 0
                line.conflicts = 0
                for entry in batch.entries { FaultPoint.hit("flush.\(entry.record.kind.rawValue).after") }
                let outcomes = try batch.outcomes(queries.map(\.part), results)
                var doubted: [JournalEntry] = []
                for entry in batch.entries {
                    if let outcome = outcomes[entry.sagaID] {
                        entry.continuation.resume(returning: outcome)
                    } else {
                        doubted.append(entry)
                    }
                }
                // No row updated is not proof of fencing: an earlier try of this flush may have been the one.
                pending = doubted.isEmpty ? [] : await self.settleRefused(doubted, on: &line)
            } catch let error where error.isMissingTable && !batch.leaves.isEmpty {
                // A leaf has gone since the list was made. The parents know better, and refuse what has no place any more.
                self.days.forget(batch.leaves)
            } catch let error {
                pending = await self.recover(pending, from: error, on: &line)
            }
        }
    }

    /// None of these is written yet. Those that came too late are given back, to be decided anew.
    private func inTime(_ entries: [JournalEntry]) -> [JournalEntry] {
        let now = self.clock.now()
        let isLate = { (entry: JournalEntry) in entry.record.notAfter.map { $0 <= now } ?? false }
        guard entries.contains(where: isLate) else { return entries }
        for entry in entries where isLate(entry) { entry.continuation.resume(returning: .late) }
        return entries.filter { !isLate($0) }
    }

    /// Decides by SQLSTATE what becomes of a flush that failed. Returns the entries to flush again.
    private func recover(
        _ entries: [JournalEntry], from error: PostgresError, on line: inout WriterLine
    ) async -> [JournalEntry] {
        if error.isSerialization {
            line.conflicts += 1
            // That may be one row that somebody has locked: no reason to refuse all.
            if line.conflicts > Self.patience { self.unreachable() }
            try? await self.surroundings.sleep(for: .milliseconds(self.surroundings.integer(in: 1...10)))
            return entries
        }
        if error.isConnectionClass || error.isOutcomeUnknown || error.code == .timedOut || error.code == .closed {
            self.logger.log(
                .warning, cause: "journal.flush", "[SAGA] the journal lost a flush of \(entries.count): \(error)")
            if let connection = line.connection {
                line.lostBackend = (connection.backendPID, connection.backendStart)
                await connection.close()
            }
            line.connection = nil
            line.lostFlushes += 1
            // Whoever is out of disk or memory (class 53) still takes connections, and must not be hammered with them.
            // It answers, and has taken nothing for most of a second.
            if line.lostFlushes > 4 { self.setStuck(true, line) }
            if line.lostFlushes > 1 {
                try? await self.surroundings.sleep(for: .milliseconds(min(25 << min(line.lostFlushes, 6), 1000)))
            }
            return entries
        }
        // A row of the batch is bad: find it.
        if entries.count > 1 {
            let middle = entries.count / 2
            await self.flush(Array(entries[..<middle]), on: &line)
            await self.flush(Array(entries[middle...]), on: &line)
            return []
        }
        for entry in entries {
            self.logger.log(
                .error, cause: "journal.refused \(error.sqlstate ?? "")", "[SAGA] the database refuses a record",
                metadata: [
                    "saga_id": "\(entry.sagaID)", "sqlstate": "\(error.sqlstate ?? "none")", "error": "\(error)",
                ])
            entry.continuation.resume(
                returning: .rejected(
                    StepError(
                        .invalid, reason: "JOURNAL_REJECTED",
                        message: "the database refused this step's record (SQLSTATE \(error.sqlstate ?? "none"))")))
        }
        return []
    }

    /// After a lost connection: first the old backend must be gone, then the rows say what was committed.
    private func settleLost(_ entries: [JournalEntry], on line: inout WriterLine) async -> [JournalEntry] {
        guard let connection = line.connection else { return entries }
        do {
            if let lost = line.lostBackend {
                while !Task.isCancelled {
                    var parameters = SQLParameters()
                    parameters.append(lost.pid)
                    parameters.append(lost.start)
                    let rows = try await connection.run([SQLQuery(JournalStatements.terminateBackend, parameters)])
                    if try rows[0].single().int64(0) == 0 { break }
                    try? await self.surroundings.sleep(for: .milliseconds(10))
                }
                line.lostBackend = nil
            }
            return await self.settleRefused(entries, on: &line, maybeUncommitted: true)
        } catch {
            let lost = line.lostBackend
            await connection.close()
            line.connection = nil
            line.lostBackend = lost
            return entries
        }
    }

    /// Reads (owner, version) of sagas whose record did not pass the guard, or whose flush was lost.
    ///
    /// - Parameter maybeUncommitted: a flush was lost; an unchanged row means that it is to be written again.
    /// - Returns: the entries to flush again.
    private func settleRefused(
        _ entries: [JournalEntry], on line: inout WriterLine, maybeUncommitted: Bool = false
    ) async -> [JournalEntry] {
        guard let connection = line.connection else { return entries }
        do {
            let rows = try await self.days.reading(entries, of: \.sagaID) { parts throws(PostgresError) in
                try await connection.run(
                    parts.map { part in
                        var parameters = SQLParameters()
                        parameters.append(array: part.elements.map(\.sagaID.rawValue))
                        return SQLQuery(self.statements.reread(on: part.leaf), parameters)
                    })
            }.joined()
            var found: [SagaID: (owner: Int64, version: Int, status: String, output: String?)] = [:]
            for row in rows {
                guard let id = SagaID(try row.text(0)) else { continue }
                found[id] = (
                    try row.int64(1), Int(try row.int32(2)), try row.text(3), try row.optionalText(4)
                )
            }
            var again: [JournalEntry] = []
            for entry in entries {
                guard let row = found[entry.sagaID] else {
                    // A creation that never happened: lost, or refused because this instance is fenced.
                    if maybeUncommitted, entry.record.birth != nil {
                        again.append(entry)
                    } else {
                        entry.continuation.resume(returning: .fenced)
                    }
                    continue
                }
                if row.owner == self.owner, row.version == entry.record.expectedVersion + 1 {
                    let isGranted = row.status == entry.record.granted.snapshot.status.name
                    entry.continuation.resume(
                        returning: .committed(granted: isGranted, databaseOutput: row.output))
                } else if row.owner == self.owner, row.version == entry.record.expectedVersion, maybeUncommitted {
                    again.append(entry)
                } else {
                    entry.continuation.resume(returning: .fenced)
                }
            }
            return again
        } catch {
            line.lostBackend = (connection.backendPID, connection.backendStart)
            await connection.close()
            line.connection = nil
            return entries
        }
    }
}
