import Glibc
import TestSupport

@testable import SagaRuntime

/// The one real PostgreSQL behind all runs, as the simulation lets the replicas see it.
///
/// A request reaches the server at one virtual instant. The scheduler then waits, in real time, until the server has answered
/// or shows that it waits for a lock; in the latter case the request is parked and the others go on. So at any virtual
/// instant nothing is half done that could be done, and the order of things is the seed's.
///
/// Unchecked: of one thread.
final class Database: @unchecked Sendable {
    enum State { case up, down, readOnly }

    /// 2030-06-01T12:00:00Z, in microseconds: every run begins then.
    static let epoch: Int64 = 1_906_545_600_000_000

    private let configuration: PostgresConfiguration
    private let admin: Backend
    private var free: [Backend] = []
    private let emptied: String
    private let scheduler = Scheduler.shared

    // MARK: Of the run

    private(set) var state = State.up
    /// The server's clock is ahead of the run's by this.
    var ahead: Duration = .zero
    private(set) var statements = 0
    private var history = History(prints: false)
    private var faults: Faults?
    private var sessions: [Session] = []
    private var nextPID: Int32 = 1000
    /// Whether a statement is worth a line of the history.
    var dullNames: [String: Bool] = [:]
    /// Requests that wait for a lock, in the order in which they began to.
    private var parked: [Parked] = []
    private var spent: [Backend] = []
    private var strangers: [Int: Backend] = [:]

    private struct Parked {
        var session: Session
        var number: Int
        var answered: (Backend.Answer) -> Void
    }

    // MARK: Before the first run

    /// Makes a server and a database with the engine's tables.
    static func make() async throws -> Database {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let connection = try await PostgresConnection.connect(database.configuration)
        // What is set for the whole server: nothing happens on its own, and nothing is given up.
        for setting in [
            "autovacuum = off", "deadlock_timeout = '1h'", "track_activities = on", "synchronous_commit = off",
        ] {
            try await connection.execute("ALTER SYSTEM SET \(setting)")
        }
        try await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
        var configuration = PostgresConfiguration.engine(conninfo: database.conninfo)
        configuration.statementTimeout = .zero
        configuration.lockTimeout = .zero
        configuration.idleInTransactionTimeout = .zero
        configuration.connectTimeout = .seconds(60)
        // The days of the run, as a server makes them at its start.
        let pool = PostgresPool(configuration, size: 1, maximumWaiters: 1)
        let clock = DatabaseClock()
        clock.learn(Timestamp(microseconds: Self.epoch), sent: .now, received: .now)
        try await PartitionKeeper(pool: pool, days: SagaDays(), clock: clock, logger: Simulator.silent).ensure()
        try await pool.execute(SimulatedSchema.sql)
        try await pool.execute(SimulatedSchema.rebindDefaults)
        // Only what a run can fill: an empty table costs a file all the same.
        let day = PartitionKeeper.name(of: PartitionKeeper.day(Timestamp(microseconds: Self.epoch)))
        let tables = try await pool.run(
            SQLQuery(
                SQLStatement(
                    "sim_tables",
                    """
                    SELECT c.oid::regclass::text FROM pg_class c
                    WHERE c.relkind = 'r' AND c.relnamespace IN ('public'::regnamespace, 'sim'::regnamespace)
                        AND (NOT c.relispartition OR c.relname LIKE '%\\_' || $1)
                        AND c.relname NOT IN ('saga_migration', 'saga_setting')
                    ORDER BY 1
                    """), Self.parameters(day)))
        var names: [String] = []
        for (index, row) in tables.enumerated() {
            let name = try row.text(0)
            let count = try await pool.run(
                SQLQuery(SQLStatement("sim_count_\(index)", "SELECT count(*) FROM \(name)"))
            ).single().int64(0)
            // What a migration filled belongs to the schema.
            if count == 0 { names.append(name) }
        }
        await pool.shutdown()
        return try Database(configuration, emptied: names.joined(separator: ", "))
    }

    private static func parameters(_ text: String) -> SQLParameters {
        var parameters = SQLParameters()
        parameters.append(text)
        return parameters
    }

    private init(_ configuration: PostgresConfiguration, emptied: String) throws(PostgresError) {
        self.configuration = configuration
        self.emptied = emptied
        self.admin = try Backend(configuration)
    }

    // MARK: Between runs

    /// An empty database, for another seed.
    func begin(_ history: History, _ faults: Faults) {
        for session in self.sessions { self.putAside(session.backend) }
        self.sessions = []
        for parked in self.parked { parked.session.backend.isInTransaction = true }
        self.parked = []
        for stranger in self.strangers.values.sorted(by: { $0.pid < $1.pid }) { self.putAside(stranger) }
        self.strangers = [:]
        for backend in self.spent {
            if backend.isBusy || backend.isInTransaction || !backend.isUsable {
                self.discard(backend)
            } else {
                self.free.append(backend)
            }
        }
        self.spent = []
        self.must(
            .simple(
                """
                DO $$
                DECLARE used text;
                BEGIN
                    -- Of an empty table everything would be made anew all the same: its files, and all plans.
                    SELECT string_agg(t::text, ', ') INTO used
                    FROM unnest('{\(self.emptied)}'::regclass[]) t WHERE pg_catalog.pg_relation_size(t) > 0;
                    IF used IS NOT NULL THEN EXECUTE 'TRUNCATE ' || used; END IF;
                END $$;
                UPDATE saga_clock SET epoch = 1;
                SELECT setval('saga_instance_id', 1, false), setval('sim.uuids', 1, false),
                    setval('saga_command_command_id_seq', 1, false),
                    setval('sim.notification_number_seq', 1, false);
                INSERT INTO sim.seat SELECT generate_series(1, \(SimulatedSchema.seats))
                """))
        self.history = history
        self.faults = faults
        self.state = .up
        self.ahead = .zero
        self.nextPID = 1000
        self.statements = 0
    }

    /// Not used again in this run: somebody may have written down whose it was.
    private func putAside(_ backend: Backend) { self.spent.append(backend) }

    private func discard(_ backend: Backend) {
        if backend.isBusy || backend.isInTransaction {
            _ = self.must(.simple("SELECT pg_catalog.pg_terminate_backend(\(backend.pid))"))
            if backend.isBusy { _ = backend.wait() }
        }
        backend.end()
    }

    @discardableResult
    private func must(_ order: Backend.Order) -> [SQLRows] {
        do {
            return try self.admin.run(order).get()
        } catch {
            fatalError("the simulator's own SQL failed: \(error)")
        }
    }

    /// For the oracle: rows of text.
    func rows(_ sql: String) -> [[String]] {
        let statement = SQLStatement("sim_\(Chance(seed: 0, stream: sql).first)", sql)
        do {
            let rows = self.must(.pipeline([SQLQuery(statement)], .implicit))[0]
            return try rows.map { row in try (0..<rows.columnCount).map { try row.optionalText($0) ?? "" } }
        } catch {
            fatalError("the simulator's own SQL failed: \(error)")
        }
    }

    // MARK: Connections

    /// Told whenever something goes from a machine to the server.
    /// Returns whether the request is lost.
    var crossed: (Machine, [String]) -> Bool = { _, _ in false }

    var requestFate: RequestFate { self.faults?.requestFate() ?? RequestFate(there: .zero, back: .zero) }

    func write(_ what: String, _ who: String, isDull: Bool) { self.history.note(who, what, isDull: isDull) }

    var now: Timestamp {
        Timestamp(microseconds: Self.epoch + self.scheduler.now / 1000 + self.ahead.wholeMicroseconds)
    }

    func connect(
        _ machine: Machine, _ configuration: PostgresConfiguration,
        _ answer: @escaping (Result<any SimulatedSession, PostgresError>) -> Void
    ) {
        let delay = self.faults?.delay() ?? .zero
        self.scheduler.after(delay) {
            guard machine.life != .dead else { return }
            guard self.state != .down else {
                machine.deliver(after: delay) {
                    answer(.failure(PostgresError(.connectFailed, "connection refused (simulated)")))
                }
                return
            }
            let session = Session(
                machine, self, configuration, backend: self.takeBackend(), pid: self.nextPID, start: self.now)
            self.nextPID += 1
            self.sessions.append(session)
            self.must(
                .simple(
                    """
                    INSERT INTO sim.pg_stat_activity VALUES (\(session.info.backendPID),
                        'epoch'::timestamptz + \(session.info.backendStart.microseconds) * interval '1 microsecond')
                    """))
            machine.onDeath { session.clientIsGone() }
            machine.deliver(after: delay) { answer(.success(session)) }
        }
    }

    private func takeBackend() -> Backend {
        if let backend = self.free.popLast() { return backend }
        do {
            let backend = try Backend(self.configuration)
            _ = try backend.run(.simple(SimulatedSchema.searchPath)).get()
            return backend
        } catch {
            fatalError("the simulator can't connect: \(error)")
        }
    }

    /// The server's side of a connection is over.
    func disconnect(_ session: Session) {
        guard let index = self.sessions.firstIndex(where: { $0 === session }) else { return }
        self.sessions.remove(at: index)
        self.must(.simple("DELETE FROM sim.pg_stat_activity WHERE pid = \(session.info.backendPID)"))
        if session.backend.isBusy || session.backend.isInTransaction {
            self.parked.removeAll { $0.session === session }
            self.discard(session.backend)
            // What it had locked is free.
            self.settleParked()
        } else {
            self.putAside(session.backend)
        }
    }

    // MARK: Faults of the whole server

    func turn(_ state: State) {
        self.history.note("db", "IS \(state)")
        self.state = state
        if state == .down { for session in self.sessions { session.serverIsGone() } }
    }

    /// Somebody who is none of the replicas locks a saga's row.
    func lockRow(of sagaID: String, for duration: Duration) {
        let backend = self.takeBackend()
        let key = self.strangers.count
        self.strangers[key] = backend
        backend.isInTransaction = true
        self.history.note("db", "a stranger locks \(sagaID) for \(duration)")
        // A row that is locked already is let be: nobody here may wait.
        _ = backend.run(
            .simple("BEGIN; SELECT FROM saga_state WHERE saga_id = '\(sagaID)' FOR UPDATE SKIP LOCKED"))
        self.scheduler.after(duration) {
            guard self.strangers[key] === backend else { return }
            self.strangers[key] = nil
            _ = backend.run(.simple("ROLLBACK"))
            backend.isInTransaction = false
            self.putAside(backend)
            self.history.note("db", "the stranger goes")
            self.settleParked()
        }
    }

    // MARK: Damage

    /// Makes a saga's first events unreadable, and returns them as they were.
    func damage(_ sagaID: String) -> String? {
        let event = self.rows("SELECT encode(events, 'hex') FROM saga_event WHERE \(Self.isFirst(sagaID))")
        guard let event = event.first?.first else { return nil }
        self.replace(sagaID, "00")
        return event
    }

    /// Puts an event back, and takes its saga out of quarantine, as an operator would.
    func mend(_ sagaID: String, _ event: String) {
        self.replace(sagaID, event)
        self.must(.simple("DELETE FROM saga_quarantine WHERE saga_id = '\(sagaID)'"))
    }

    private static func isFirst(_ sagaID: String) -> String {
        "saga_id = '\(sagaID)' AND sequence = (SELECT min(sequence) FROM saga_event WHERE saga_id = '\(sagaID)')"
    }

    private func replace(_ sagaID: String, _ event: String) {
        self.must(
            .simple(
                "UPDATE saga_event SET events = '\\x\(event)'::bytea WHERE \(Self.isFirst(sagaID))"))
    }

    // MARK: Requests

    /// Runs a request on its backend. `answered` is called at once, or when the lock that it waits for is free.
    func execute(
        _ session: Session, _ number: Int, _ order: Backend.Order, _ answered: @escaping (Backend.Answer) -> Void
    ) {
        self.statements += 1
        session.backend.isBusy = true
        session.backend.start(self.simulated(order, session))
        if let answer = self.settle(session.backend) {
            answered(self.understood(answer))
        } else {
            self.history.note("db", "\(session.name) waits for a lock")
            self.parked.append(Parked(session: session, number: number, answered: answered))
            let limit = Self.waitsShortly(order) ? FlushPart<JournalEntry>.shortLockTimeout : session.lockTimeout
            if limit > .zero { self.scheduler.after(limit) { self.giveUp(session, number) } }
        }
        self.settleParked()
        self.endTerminated()
        self.notify()
    }

    private static let prelude = SQLStatement(
        "sim_prelude",
        """
        SELECT set_config('sim.now', $1, false), set_config('sim.pid', $2, false),
            set_config('transaction_read_only', $3, true)
        """)

    /// A flush that has met a lock before. The time it waits is ours to measure, so the server isn't told.
    private static func waitsShortly(_ order: Backend.Order) -> Bool {
        guard case .pipeline(let queries, _) = order else { return false }
        return queries.first?.statement.name == JournalProbe.setsLockTimeout.name
    }

    private static let untold = SQLStatement("sim_untold", "SELECT ''")

    /// With the simulation's time ahead of it.
    private func simulated(_ order: Backend.Order, _ session: Session) -> Backend.Order {
        let isReadOnly = self.state == .readOnly ? "on" : "off"
        switch order {
        case .pipeline(let queries, let transaction):
            var parameters = SQLParameters()
            parameters.append("\(self.now.microseconds)")
            parameters.append("\(session.info.backendPID)")
            parameters.append(isReadOnly)
            let told = Self.waitsShortly(order) ? [SQLQuery(Self.untold)] + queries.dropFirst() : queries
            return .pipeline([SQLQuery(Self.prelude, parameters)] + told, transaction)
        case .simple(let sql):
            return .simple(
                "SET sim.now = '\(self.now.microseconds)'; SET sim.pid = '\(session.info.backendPID)'; \(sql)")
        case .end:
            return .end
        }
    }

    private func understood(_ answer: Backend.Answer) -> Backend.Answer {
        switch answer {
        case .success(let rows): return .success(Array(rows.dropFirst(rows.isEmpty ? 0 : 1)))
        case .failure(var error):
            error.queryIndex = error.queryIndex.map { max(0, $0 - 1) }
            // How we give up what waits for a lock.
            if error.sqlstate == "57014" {
                error.sqlstate = "55P03"
                error.message = "canceling statement due to lock timeout"
            }
            return .failure(error)
        }
    }

    /// The backend's answer, or `nil` once the server shows that it waits for a lock.
    private func settle(_ backend: Backend) -> Backend.Answer? {
        while true {
            if let answer = backend.waitBriefly() {
                backend.isBusy = false
                return answer
            }
            let waiting = self.rows("SELECT pid::text FROM pg_catalog.pg_locks WHERE NOT granted")
            if waiting.contains(["\(backend.pid)"]) { return nil }
        }
    }

    /// Whatever was freed: who waited for it goes on, and frees others.
    private func settleParked() {
        var hasChanged = true
        while hasChanged {
            hasChanged = false
            for (index, parked) in self.parked.enumerated() {
                guard let answer = self.settle(parked.session.backend) else { continue }
                self.parked.remove(at: index)
                parked.answered(self.understood(answer))
                hasChanged = true
                break
            }
        }
    }

    private func giveUp(_ session: Session, _ number: Int) {
        guard self.parked.contains(where: { $0.session === session && $0.number == number }) else { return }
        self.must(.simple("SELECT pg_catalog.pg_cancel_backend(\(session.backend.pid))"))
        guard let index = self.parked.firstIndex(where: { $0.session === session }) else { return }
        let parked = self.parked.remove(at: index)
        let answer = session.backend.wait()
        session.backend.isBusy = false
        parked.answered(self.understood(answer))
        self.settleParked()
    }

    private func endTerminated() {
        guard self.mayHaveTerminated else { return }
        self.mayHaveTerminated = false
        for row in self.rows("DELETE FROM sim.terminated RETURNING pid::text") {
            guard let session = self.sessions.first(where: { "\($0.info.backendPID)" == row[0] }) else { continue }
            self.history.note("db", "ends \(session.name)")
            session.terminate()
        }
    }

    private var mayHaveTerminated = false
    private var mayHaveNotified = false
    private var kinds: [String: (terminates: Bool, notifies: Bool)] = [:]

    /// After a statement that names one of these functions somebody has to be told.
    func look(at statement: SQLStatement) {
        let kind =
            self.kinds[statement.name]
            ?? (statement.text.contains("pg_terminate_backend"), statement.text.contains("pg_notify"))
        self.kinds[statement.name] = kind
        if kind.terminates { self.mayHaveTerminated = true }
        if kind.notifies { self.mayHaveNotified = true }
    }

    private func notify() {
        guard self.mayHaveNotified else { return }
        self.mayHaveNotified = false
        let rows = self.rows(
            """
            WITH gone AS (DELETE FROM sim.notification RETURNING number, channel, payload)
            SELECT channel, payload FROM gone ORDER BY number
            """)
        for row in rows {
            for session in self.sessions {
                session.notify(channel: row[0], payload: row[1], self.faults?.delay() ?? .zero)
            }
        }
    }
}

extension Chance {
    /// As a name for what the stream is called by.
    var first: UInt64 {
        var copy = self
        return copy.next()
    }
}
