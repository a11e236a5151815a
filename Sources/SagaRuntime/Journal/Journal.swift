import Logging
import Synchronization

/// Batches the records of many sagas into few transactions (docs/architecture.md).
///
/// Natural batching: each writer starts its next flush when its last one returned, with everything that gathered in the
/// meantime up to a cap. A record's `write` returns only once its flush is known to be committed, or known not to be.
///
/// What has to wait for somebody else's lock waits in the slow lane, with a writer of its own, so that nobody waits with it.
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

    /// A new saga whose fate is open.
    private struct Admission {
        /// When its flush left.
        var sent: BootTime?
        /// Whoever waits for it was told that it may have started, or has gone: if it turns out that it has not, it never does.
        var isUnwanted = false
    }

    private static let moment: Duration = .milliseconds(400)

    private struct State {
        var queue = FlushQueue<JournalEntry>()
        /// The slow lane: what waits for others' locks, first come first.
        var apart: [JournalEntry] = []
        /// The sagas of it, and those whose next record is likely to meet the same lock.
        var sagasApart: Set<SagaID> = []
        var admissions: [SagaID: Admission] = [:]
        var idleWriters: [CheckedContinuation<Void, Never>] = []
        var idleSlowWriter: CheckedContinuation<Void, Never>?
        var isClosed = false
        /// Writers that the database can't be reached by, or that it takes nothing from.
        var stuck: Set<Int> = []
    }

    let configuration: Configuration
    /// The instance in whose name everything is written.
    let owner: Int64
    let days: SagaDays
    let statements = JournalStatements()
    let clock: DatabaseClock
    let surroundings: Surroundings
    let logger: Logger
    let observer: any SagaRuntimeObserver
    /// Told which backends write for this instance, so that whoever fences it can end them.
    let registerBackends: @Sendable (_ writer: Int, PostgresConnection) async throws -> Void
    /// Told while the database takes nothing: of these new sagas nobody knows whether they were written. All others that
    /// waited for their first flush were withdrawn, and never happen.
    private let unreachable: @Sendable (_ doubtful: [SagaID]) -> Void
    private let state = Mutex(State())

    init(
        configuration: Configuration, owner: Int64, days: SagaDays, clock: DatabaseClock, logger: Logger,
        observer: any SagaRuntimeObserver,
        registerBackends: @escaping @Sendable (_ writer: Int, PostgresConnection) async throws -> Void,
        unreachable: @escaping @Sendable (_ doubtful: [SagaID]) -> Void = { _ in }
    ) {
        var configuration = configuration
        configuration.connection.lockTimeout = FlushPart<JournalEntry>.lockTimeout
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

    /// Records that wait for others' locks.
    var apart: Int { self.state.withLock { $0.sagasApart.count } }

    /// Whether the database takes no records: it can't be reached, or answers and refuses every flush.
    var isStuck: Bool { self.state.withLock { !$0.stuck.isEmpty } }

    // MARK: Records in

    /// Hands a record in and returns when its fate is known; that takes as long as the database is away.
    func write(_ record: SagaRecord) async -> JournalOutcome {
        await withCheckedContinuation { continuation in
            let entry = JournalEntry(record: record, continuation: continuation)
            enum Action { case refuse(JournalOutcome), wake(CheckedContinuation<Void, Never>?) }
            let action: Action = self.state.withLock { state in
                guard !state.isClosed else { return .refuse(.fenced) }
                let importance = record.importance
                if importance == .admission {
                    guard state.stuck.isEmpty else { return .refuse(.withdrawn) }
                    let waiting = state.queue.count(of: .admission) + state.apart.count
                    guard waiting < self.configuration.maximumQueuedAdmissions else { return .refuse(.overloaded) }
                    state.admissions[entry.sagaID] = Admission()
                }
                if state.sagasApart.contains(entry.sagaID) {
                    state.apart.append(entry)
                    defer { state.idleSlowWriter = nil }
                    return .wake(state.idleSlowWriter)
                }
                state.queue.append(entry, importance)
                return .wake(state.idleWriters.popLast())
            }
            switch action {
            case .refuse(let outcome): continuation.resume(returning: outcome)
            case .wake(let writer): writer?.resume()
            }
        }
    }

    /// Whoever wanted this new saga has gone: it never happens, unless its flush has left already.
    func withdraw(_ id: SagaID) {
        self.state.withLock { $0.admissions[id]?.isUnwanted = true }
    }

    // MARK: Running

    /// Runs the writers until the task is cancelled; what is still queued then ends as `fenced`.
    func run() async {
        await withTaskCancellationHandler {
            await withDiscardingTaskGroup { group in
                for number in 0..<self.configuration.writers {
                    group.addTask {
                        var writer = JournalWriter(self, number: number, isSlow: false)
                        await writer.run()
                    }
                }
                group.addTask {
                    var writer = JournalWriter(self, number: self.configuration.writers, isSlow: true)
                    await writer.run()
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
            defer {
                state.idleWriters = []
                state.idleSlowWriter = nil
                state.apart = []
                state.sagasApart = []
                state.admissions = [:]
            }
            return (
                state.queue.take(.max) + state.apart, state.idleWriters + [state.idleSlowWriter].compactMap { $0 }
            )
        }
        for entry in entries { entry.continuation.resume(returning: .fenced) }
        for writer in writers { writer.resume() }
    }

    // MARK: What writers ask and tell

    /// What the next flush is to hold; nothing once the journal is closed.
    func next(isSlow: Bool) async -> [JournalEntry] {
        while true {
            let entries: [JournalEntry]? = self.state.withLock { state in
                let count = self.configuration.maximumRecords
                if isSlow {
                    if state.apart.isEmpty { return state.isClosed ? [] : nil }
                    defer { state.apart.removeFirst(min(count, state.apart.count)) }
                    return Array(state.apart.prefix(count))
                }
                if state.queue.isEmpty { return state.isClosed ? [] : nil }
                return state.queue.take(count)
            }
            if let entries { return entries }
            await withCheckedContinuation { continuation in
                let resumeNow = self.state.withLock { state in
                    guard !state.isClosed, isSlow ? state.apart.isEmpty : state.queue.isEmpty else { return true }
                    if isSlow { state.idleSlowWriter = continuation } else { state.idleWriters.append(continuation) }
                    return false
                }
                if resumeNow { continuation.resume() }
            }
        }
    }

    /// What of these may still be written. They are not written yet: those that came too late are given back, to be decided
    /// anew, and those that nobody wants any more end here.
    func current(_ entries: [JournalEntry]) -> [JournalEntry] {
        let now = self.clock.now()
        let isLate = { (entry: JournalEntry) in entry.record.notAfter.map { $0 <= now } ?? false }
        let unwanted = self.state.withLock { state in
            state.admissions.isEmpty ? [] : entries.filter { state.admissions[$0.sagaID]?.isUnwanted == true }
        }
        guard !unwanted.isEmpty || entries.contains(where: isLate) else { return entries }
        let gone = Set(unwanted.map(\.sagaID))
        for entry in unwanted { self.end(entry, .withdrawn) }
        return entries.filter { entry in
            if gone.contains(entry.sagaID) { return false }
            guard isLate(entry) else { return true }
            self.end(entry, .late)
            return false
        }
    }

    /// The flush of these leaves, or is known not to have been committed.
    func mark(_ entries: [JournalEntry], isSent: Bool) {
        guard entries.contains(where: { $0.record.birth != nil }) else { return }
        let sent = isSent ? self.surroundings.now : nil
        self.state.withLock { state in
            for entry in entries where entry.record.birth != nil { state.admissions[entry.sagaID]?.sent = sent }
        }
    }

    /// The fate of a record.
    func end(_ entry: JournalEntry, _ outcome: JournalOutcome) {
        self.state.withLock { state in
            if entry.record.birth != nil { state.admissions[entry.sagaID] = nil }
            // What is decided anew is about the same rows.
            if case .late = outcome { return }
            if !state.sagasApart.isEmpty { state.sagasApart.remove(entry.sagaID) }
        }
        entry.continuation.resume(returning: outcome)
    }

    /// Puts a record into the slow lane.
    func setApart(_ entry: JournalEntry) {
        enum Place { case closed, waits(isNew: Bool, CheckedContinuation<Void, Never>?) }
        let place: Place = self.state.withLock { state in
            if state.isClosed { return .closed }
            state.apart.append(entry)
            let isNew = state.sagasApart.insert(entry.sagaID).inserted
            defer { state.idleSlowWriter = nil }
            return .waits(isNew: isNew, state.idleSlowWriter)
        }
        switch place {
        case .closed:
            entry.continuation.resume(returning: .fenced)
        case .waits(let isNew, let writer):
            if isNew {
                self.logger.log(
                    .warning, cause: "journal.apart",
                    "[SAGA] a saga waits, alone, for a lock that somebody else holds, or for its day's partition",
                    metadata: ["saga_id": "\(entry.sagaID)"])
            }
            writer?.resume()
        }
    }

    /// Whether the database takes what this writer has.
    func setStuck(_ isStuck: Bool, writer: Int) {
        let (withdrawn, doubtful): ([JournalEntry], [SagaID]) = self.state.withLock { state in
            guard isStuck else {
                state.stuck.remove(writer)
                return ([], [])
            }
            state.stuck.insert(writer)
            if Mutant.queuedCreationsStay.isActive { return ([], []) }
            let withdrawn = state.queue.take(of: .admission) + state.apart.filter { $0.record.birth != nil }
            state.apart.removeAll { $0.record.birth != nil }
            var doubtful: [SagaID] = []
            for (id, admission) in state.admissions where !admission.isUnwanted {
                // What has only just left comes back in a moment.
                guard let sent = admission.sent, self.surroundings.now - sent > Self.moment else { continue }
                state.admissions[id]?.isUnwanted = true
                doubtful.append(id)
            }
            return (withdrawn, doubtful.sorted())
        }
        for entry in withdrawn { self.end(entry, .withdrawn) }
        if isStuck { self.unreachable(doubtful) }
    }
}
