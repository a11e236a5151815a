import CLibpq
import Glibc

/// The owner of one `PGconn`. Confined to the connection's thread: it lives in a local variable there.
///
/// All waiting is in `poll` with a deadline; libpq itself is in non-blocking mode. The connection stays in pipeline
/// mode, but for the simple protocol.
struct LibpqSession: ~Copyable {
    /// How a pipeline becomes a transaction.
    enum Transaction: Sendable {
        /// Everything up to the Sync is one implicit transaction.
        case implicit
        /// BEGIN … COMMIT.
        case explicit
        /// BEGIN, `pg_current_xact_id()` with its answer at once, … COMMIT.
        case tracked
    }

    /// What was learned about the server side while connecting.
    struct Info: Sendable {
        var backendPID: Int32 = 0
        var backendStart = Timestamp(microseconds: 0)
        var serverVersion: Int32 = 0
    }

    private struct Prepared {
        var text: String
        var types: [UInt32]
        /// `uses` as it was then.
        var lastUsed: UInt64

        /// Why `query` can't run under this preparation; a mistake of the program's.
        func mismatch(_ query: SQLQuery) -> String? {
            if self.text != query.statement.text { return "two statements are called \(query.statement.name)" }
            if self.types != query.parameters.types { return "the parameter types of \(query.statement.name) changed" }
            return nil
        }
    }

    /// One expected answer of a pipeline.
    private enum Slot {
        case prepare(SQLStatement)
        case deallocate(String, Prepared)
        case begin
        case settings
        case transactionID
        case query(Int)
        case commit
        case rollback
    }

    private let connection: OpaquePointer
    private let requestTimeout: Duration
    /// Made at the start of every transaction, where the next one may be another session's.
    private var transactionSettings: SQLQuery?
    private(set) var info = Info()
    /// Of the transaction that ran last, if it was tracked and its id arrived.
    private(set) var transactionID: Int64?
    private var prepared: [String: Prepared] = [:]
    /// Uses of prepared statements so far, and as they were when the pipeline began that is being sent.
    private var uses: UInt64 = 0
    private var usesBefore: UInt64 = 0
    /// The server's end is closed, or reading failed: what is buffered can still be parsed.
    private var inputEnded = false
    /// Scratch for PQsendQueryPrepared.
    private var values: [UnsafePointer<CChar>?] = []
    private var lengths: [Int32] = []
    private var formats: [Int32] = []

    /// Statements that a session keeps prepared; the least recently used makes room. A day's statements are many plans over
    /// the days, each with memory of its own in the server.
    static let maximumPrepared = 128

    // Behind a transaction pooler the default could be anybody's, and setting it comes too late for a transaction that runs.
    private static let begin = SQLStatement("devicerpc_begin", "BEGIN ISOLATION LEVEL READ COMMITTED")
    /// Holds for the transaction that runs, and without a warning, unlike SET LOCAL, where that is implicit.
    private static let isolation = SQLStatement("devicerpc_isolation", "SET transaction_isolation = 'read committed'")
    private static let commit = SQLStatement("devicerpc_commit", "COMMIT")
    private static let rollback = SQLStatement("devicerpc_rollback", "ROLLBACK")
    private static let transactionID = SQLStatement("devicerpc_xid", "SELECT pg_current_xact_id()")
    private static let setUp = SQLStatement(
        "devicerpc_setup",
        """
        SELECT pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
               current_setting('server_encoding'), (SELECT count(set_config(name, value, false))
               FROM unnest($1::text[], $2::text[]) AS setting(name, value)),
               \(Self.commitsSynchronously("$1 <> '{}'", isLocal: false))
        """)
    private static let setLocally = SQLStatement(
        "devicerpc_settings",
        """
        SELECT count(set_config(name, value, true)), \(Self.commitsSynchronously("true", isLocal: true))
        FROM unnest($1::text[], $2::text[]) AS setting(name, value)
        """)

    /// What is acknowledged must survive a crash, so `off` becomes `on`, and `on` stays whatever the server is told later.
    /// `local` and the kinds of `remote` survive one too, and are the operator's choice.
    private static func commitsSynchronously(_ condition: String, isLocal: Bool) -> String {
        """
        CASE WHEN \(condition) AND current_setting('synchronous_commit') IN ('on', 'off')
            THEN set_config('synchronous_commit', 'on', \(isLocal)) END
        """
    }

    // MARK: Connecting

    /// Takes ownership of `connection`.
    private init(owning connection: OpaquePointer, _ configuration: PostgresConfiguration) {
        self.connection = connection
        self.requestTimeout = configuration.requestTimeout
    }

    /// A statement that takes no time to plan: the time-out that it sets aside may be short.
    private static func limits(_ configuration: PostgresConfiguration) -> SQLQuery {
        let milliseconds = max(0, configuration.statementTimeout.wholeMicroseconds / 1000)
        return SQLQuery(SQLStatement("devicerpc_limits", "SET statement_timeout = \(milliseconds)"))
    }

    private static func parameters(of settings: [(name: String, value: String)]) -> SQLParameters {
        var parameters = SQLParameters()
        parameters.append(array: settings.map(\.name))
        parameters.append(array: settings.map(\.value))
        return parameters
    }

    deinit { PQfinish(self.connection) }

    /// Connects to the first server that the string names: for whoever has a thread of its own and no choice.
    static func connect(_ configuration: PostgresConfiguration) throws(PostgresError) -> LibpqSession {
        let string = try ConnectionString.of(configuration)
        return try Self.connect(configuration, string, to: string.hosts[0])
    }

    /// Connects to one server and sets the session up, within the time that one server has.
    static func connect(
        _ configuration: PostgresConfiguration, _ string: ConnectionString, to host: ConnectionString.Host
    ) throws(PostgresError) -> LibpqSession {
        let deadline = BootTime.now + (string.connectTimeout ?? configuration.connectTimeout)
        // NULL only when out of memory; else the session's to finish, also when a later step throws.
        guard let connection = Self.startConnecting(configuration.connectParameters(string, host)) else {
            throw PostgresError(.connectFailed, "no memory for a connection")
        }
        var session = LibpqSession(owning: connection, configuration)
        // libpq would write them to standard error.
        PQsetNoticeReceiver(connection, ignoreNotice, nil)
        // So that a refusal tells its SQLSTATE.
        PQsetErrorVerbosity(connection, PQERRORS_VERBOSE)
        try session.finishConnecting(deadline)
        PQsetErrorVerbosity(connection, PQERRORS_DEFAULT)
        // 0 and 1 are success; they fail only without a connection.
        guard PQsetnonblocking(connection, 1) == 0, PQenterPipelineMode(connection) == 1 else {
            throw PostgresError(.connectFailed, session.libpqMessage)
        }
        try session.setUp(configuration, deadline)
        return session
    }

    private static func startConnecting(_ parameters: [(keyword: String, value: String)]) -> OpaquePointer? {
        let keywords = parameters.map { strdup($0.keyword) }
        let values = parameters.map { strdup($0.value) }
        defer {
            keywords.forEach { free($0) }
            values.forEach { free($0) }
        }
        let keywordPointers = keywords.map { UnsafePointer($0) } + [nil]
        let valuePointers = values.map { UnsafePointer($0) } + [nil]
        // 0: a database's name is no connection string.
        return PQconnectStartParams(keywordPointers, valuePointers, 0)
    }

    private func finishConnecting(_ deadline: BootTime) throws(PostgresError) {
        if PQstatus(self.connection) == CONNECTION_BAD { throw self.connectFailure }
        // "Before the first call, behave as if PQconnectPoll had returned PGRES_POLLING_WRITING."
        var state = PGRES_POLLING_WRITING
        while true {
            switch state {
            case PGRES_POLLING_OK:
                return
            case PGRES_POLLING_READING, PGRES_POLLING_WRITING:
                let events = Int16(state == PGRES_POLLING_READING ? POLLIN : POLLOUT)
                guard try Self.wait(PQsocket(self.connection), events, until: deadline) else {
                    throw PostgresError(.connectFailed, "the server did not answer in time")
                }
            case PGRES_POLLING_ACTIVE:
                break  // Unused since PostgreSQL 8.
            default:
                // PGRES_POLLING_FAILED
                throw self.connectFailure
            }
            state = PQconnectPoll(self.connection)
        }
    }

    private var connectFailure: PostgresError {
        let failure = ConnectFailure(libpqMessage: self.libpqMessage)
        var error = PostgresError(.connectFailed, failure.words, sqlstate: failure.sqlstate)
        error.isMisconfiguration = failure.isMisconfiguration
        return error
    }

    private mutating func setUp(_ configuration: PostgresConfiguration, _ deadline: BootTime) throws(PostgresError) {
        let isPooled = configuration.isTransactionPooled
        let settings = configuration.settings(serverVersion: PQserverVersion(self.connection))
        // Behind a transaction pooler the session is not ours to change.
        let parameters = Self.parameters(of: isPooled ? [] : settings)
        if isPooled { self.transactionSettings = SQLQuery(Self.setLocally, Self.parameters(of: settings)) }
        do throws(PostgresError) {
            // First what might end the rest of it: a time-out that the database or the role has by default.
            let queries =
                (isPooled ? [] : [Self.limits(configuration)]) + [SQLQuery(Self.setUp, parameters)]
            let results = try self.run(queries, .implicit, deadline)
            let row = try results[results.count - 1].single()
            self.info = Info(
                backendPID: isPooled ? 0 : try row.int32(0), backendStart: try row.timestamp(1),
                serverVersion: PQserverVersion(self.connection))
            let encoding = try row.text(2)
            guard encoding == "UTF8" else {
                throw Self.unusable("the database's encoding is \(encoding); it must be UTF8")
            }
        } catch {
            var failure = error
            failure.code = .connectFailed
            failure.isOutcomeUnknown = false
            // 42P05 duplicate_prepared_statement, 26000 invalid_sql_statement_name: in a session that is new?
            if error.sqlstate == "42P05" || error.sqlstate == "26000" {
                failure.message += " (behind a pooler in transaction mode, DEVICERPC_TRANSACTION_POOLER must be true)"
            }
            throw failure
        }
        guard self.info.serverVersion >= 140_000 else {
            throw Self.unusable("PostgreSQL 14 or later is needed")
        }
    }

    private static func unusable(_ message: String) -> PostgresError {
        var error = PostgresError(.connectFailed, message)
        error.isMisconfiguration = true
        return error
    }

    // MARK: Pipelines

    /// Runs queries as one pipeline with one Sync.
    ///
    /// - Returns: one result per query.
    mutating func run(
        _ queries: [SQLQuery], _ transaction: Transaction, _ deadline: BootTime
    ) throws(PostgresError) -> [SQLRows] {
        do throws(PostgresError) {
            return try self.runOnce(queries, transaction, deadline)
        } catch  where self.isStalePlan(error) {
            // 0A000: the shape of a table changed under a prepared statement; 26000: someone deallocated it. The
            // transaction is rolled back, so it may run again.
            try self.execute("DEALLOCATE ALL", deadline)
            self.prepared.removeAll()
            return try self.runOnce(queries, transaction, deadline)
        }
    }

    private func isStalePlan(_ error: PostgresError) -> Bool {
        error.code == .server && (error.sqlstate == "0A000" || error.sqlstate == "26000")
    }

    private mutating func runOnce(
        _ queries: [SQLQuery], _ transaction: Transaction, _ deadline: BootTime
    ) throws(PostgresError) -> [SQLRows] {
        self.usesBefore = self.uses
        for statement in [Self.begin, Self.transactionID, Self.commit, Self.rollback] { self.use(statement) }
        for (index, query) in queries.enumerated() {
            if let problem = query.parameters.problem {
                throw PostgresError(
                    .invalidParameter, "\(query.statement.name): \(problem)", sqlstate: "22P02", queryIndex: index)
            }
            if let known = self.prepared[query.statement.name], let problem = known.mismatch(query) {
                throw PostgresError(.invalidParameter, problem, queryIndex: index)
            }
            self.use(query.statement)
        }
        var slots: [Slot] = []
        slots.reserveCapacity(queries.count + 4)
        if transaction != .implicit { try self.send(SQLQuery(Self.begin), as: .begin, &slots) }
        if let settings = self.transactionSettings {
            // Before anything that takes a snapshot. What BEGIN says, an implicit transaction must be told.
            if transaction == .implicit { try self.send(SQLQuery(Self.isolation), as: .settings, &slots) }
            try self.send(settings, as: .settings, &slots)
        }
        if transaction == .tracked {
            try self.send(SQLQuery(Self.transactionID), as: .transactionID, &slots)
            // 0 only with a broken connection; the next call tells.
            PQsendFlushRequest(self.connection)
        }
        for (index, query) in queries.enumerated() { try self.send(query, as: .query(index), &slots) }
        switch transaction {
        case .implicit: break
        case .explicit, .tracked:
            do throws(PostgresError) {
                try self.send(SQLQuery(Self.commit), as: .commit, &slots)
            } catch {
                var failure = error
                failure.isOutcomeUnknown = true
                throw failure
            }
        }
        let outcome = try self.synchronizeAndReceive(slots, queries.count, deadline)
        if let error = outcome.error {
            try self.leaveFailedTransaction(deadline)
            throw error
        }
        return outcome.rows
    }

    /// Keeps what a pipeline is about to use from making room for others.
    private mutating func use(_ statement: SQLStatement) {
        guard let known = self.prepared.index(forKey: statement.name) else { return }
        self.uses += 1
        self.prepared.values[known].lastUsed = self.uses
    }

    /// After an error inside BEGIN … COMMIT the server waits for a ROLLBACK, locks held.
    private mutating func leaveFailedTransaction(_ deadline: BootTime) throws(PostgresError) {
        guard self.isUsable, PQtransactionStatus(self.connection) != PQTRANS_IDLE else { return }
        var slots: [Slot] = []
        try self.send(SQLQuery(Self.rollback), as: .rollback, &slots)
        let outcome = try self.synchronizeAndReceive(slots, 0, deadline)
        if outcome.error != nil { throw self.lost("ROLLBACK failed") }
    }

    /// Queues one query, and its Parse if this session has not seen it.
    private mutating func send(_ query: SQLQuery, as slot: Slot, _ slots: inout [Slot]) throws(PostgresError) {
        let statement = query.statement
        let parameters = query.parameters
        let isParsedOnce = self.transactionSettings != nil || statement.name.isEmpty
        if isParsedOnce {
            // Parsed for this transaction alone, or this use.
        } else if let known = self.prepared[statement.name] {
            // Only where both are new in this pipeline. It has no Sync yet, so the session can't be used again.
            if let problem = known.mismatch(query) { throw self.lost(problem, code: .invalidParameter) }
        } else {
            if self.prepared.count >= Self.maximumPrepared { try self.deallocateOne(&slots) }
            // 1 when queued. 0: broken connection or no memory; PQerrorMessage tells.
            guard
                PQsendPrepare(
                    self.connection, statement.name, statement.text, Int32(parameters.types.count), parameters.types)
                    == 1
            else { throw self.lost(self.libpqMessage) }
            // Taken back if the server refuses it.
            self.uses += 1
            self.prepared[statement.name] = Prepared(
                text: statement.text, types: parameters.types, lastUsed: self.uses)
            slots.append(.prepare(statement))
        }
        self.values.removeAll(keepingCapacity: true)
        self.lengths.removeAll(keepingCapacity: true)
        let count = parameters.entries.count
        while self.formats.count < count { self.formats.append(1) }
        let sent = parameters.bytes.withUnsafeBytes { bytes in
            for entry in parameters.entries {
                if entry.length < 0 {
                    self.values.append(nil)
                } else if let base = bytes.baseAddress {
                    self.values.append((base + Int(entry.offset)).assumingMemoryBound(to: CChar.self))
                } else {
                    // An empty value must not be a NULL pointer, which means NULL.
                    self.values.append(UnsafeRawPointer(Self.empty.utf8Start).assumingMemoryBound(to: CChar.self))
                }
                self.lengths.append(max(0, entry.length))
            }
            guard !isParsedOnce else {
                return PQsendQueryParams(
                    self.connection, statement.text, Int32(count), parameters.types, self.values, self.lengths,
                    self.formats, 1)
            }
            return PQsendQueryPrepared(
                self.connection, statement.name, Int32(count), self.values, self.lengths, self.formats, 1)
        }
        guard sent == 1 else { throw self.lost(self.libpqMessage) }
        slots.append(slot)
    }
    private static let empty: StaticString = ""

    /// Makes room for another prepared statement, unless this very pipeline uses them all.
    private mutating func deallocateOne(_ slots: inout [Slot]) throws(PostgresError) {
        guard let oldest = self.prepared.min(by: { $0.value.lastUsed < $1.value.lastUsed }),
            oldest.value.lastUsed <= self.usesBefore
        else { return }
        // libpq sends no Close before its version 17.
        let name = oldest.key.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"")
        guard PQsendQueryParams(self.connection, "DEALLOCATE \"\(name)\"", 0, nil, nil, nil, nil, 1) == 1 else {
            throw self.lost(self.libpqMessage)
        }
        self.prepared[oldest.key] = nil
        slots.append(.deallocate(oldest.key, oldest.value))
    }

    private struct Outcome {
        var rows: [SQLRows] = []
        /// The first error; definite, the transaction is rolled back.
        var error: PostgresError?
    }

    /// Sends the Sync and reads the answers of all slots up to it.
    private mutating func synchronizeAndReceive(
        _ slots: [Slot], _ queryCount: Int, _ deadline: BootTime
    ) throws(PostgresError) -> Outcome {
        var outcome = Outcome()
        outcome.rows.reserveCapacity(queryCount)
        self.transactionID = nil
        // Without a COMMIT the Sync commits. A ROLLBACK changes nothing whether it arrives or not.
        var decided = false
        if case .rollback = slots.last { decided = true }
        do throws(PostgresError) {
            // 1 when sent or queued; 0: broken connection.
            guard PQpipelineSync(self.connection) == 1 else { throw self.lost(self.libpqMessage) }
            for slot in slots {
                try self.receive(slot, &outcome, deadline)
                if case .commit = slot, outcome.error == nil { decided = true }
                if outcome.error != nil { decided = true }
            }
            try self.receiveSync(&outcome, deadline)
        } catch {
            var failure = error
            if decided {
                // The answer is known, only the Sync's is missing: the caller gets it, and the next one the loss.
                if outcome.error != nil || outcome.rows.count == queryCount {
                    self.inputEnded = true
                    return outcome
                }
            }
            failure.isOutcomeUnknown = !decided
            failure.transactionID = self.transactionID
            throw failure
        }
        return outcome
    }

    private mutating func receive(
        _ slot: Slot, _ outcome: inout Outcome, _ deadline: BootTime
    ) throws(PostgresError) {
        guard let result = try self.nextResult(deadline) else { throw self.lost("an answer is missing") }
        // Every status of ExecStatusType: EMPTY_QUERY, COMMAND_OK, TUPLES_OK, FATAL_ERROR and PIPELINE_ABORTED are
        // handled; COPY_* needs a COPY, SINGLE_TUPLE its mode, BAD_RESPONSE and PIPELINE_SYNC here mean that both sides
        // disagree.
        switch result.status {
        case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY:
            switch slot {
            case .prepare, .deallocate, .begin, .settings, .rollback:
                break
            case .transactionID:
                self.transactionID = try self.rows(result).single().int64(0)
            case .query:
                outcome.rows.append(try self.rows(result))
            case .commit:
                // COMMIT of a failed transaction answers ROLLBACK.
                if result.commandTag != "COMMIT" && outcome.error == nil {
                    outcome.error = PostgresError(.server, "COMMIT answered \(result.commandTag)", sqlstate: "40000")
                }
            }
        case PGRES_FATAL_ERROR:
            var queryIndex: Int?
            if case .query(let index) = slot { queryIndex = index }
            let error = result.error(queryIndex: queryIndex)
            if result.endsSession { throw self.lost(error.message, sqlstate: error.sqlstate) }
            if outcome.error == nil { outcome.error = error }
            self.forgetRefused(slot)
        case PGRES_PIPELINE_ABORTED:
            // Skipped after an earlier error: a Parse among these has not happened.
            self.forgetRefused(slot)
            if outcome.error == nil { throw self.lost("the pipeline is aborted without an error") }
        default:
            throw self.lost("unexpected answer: \(String(cString: PQresStatus(result.status)))")
        }
        while let further = try self.nextResult(deadline) {
            // One statement, one result: only an error can follow.
            guard further.status == PGRES_FATAL_ERROR else { throw self.lost("an answer too many") }
            let error = further.error(queryIndex: nil)
            if further.endsSession { throw self.lost(error.message, sqlstate: error.sqlstate) }
            if outcome.error == nil { outcome.error = error }
        }
    }

    /// A result that can't be copied out is this process's trouble, found after the fact: the connection goes.
    private mutating func rows(_ result: borrowing LibpqResult) throws(PostgresError) -> SQLRows {
        do throws(PostgresError) {
            return try result.rows()
        } catch {
            throw self.lost(error.message, code: .decoding)
        }
    }

    private mutating func receiveSync(_ outcome: inout Outcome, _ deadline: BootTime) throws(PostgresError) {
        while true {
            guard let result = try self.nextResult(deadline) else { throw self.lost("the Sync has no answer") }
            switch result.status {
            case PGRES_PIPELINE_SYNC:
                return
            case PGRES_FATAL_ERROR:
                // The implicit transaction failed to commit (a deferred constraint).
                let error = result.error(queryIndex: nil)
                if result.endsSession { throw self.lost(error.message, sqlstate: error.sqlstate) }
                if outcome.error == nil { outcome.error = error }
                if let further = try self.nextResult(deadline) {
                    if further.status == PGRES_PIPELINE_SYNC { return }
                    throw self.lost("unexpected answer to a Sync")
                }
            default:
                throw self.lost("unexpected answer to a Sync: \(String(cString: PQresStatus(result.status)))")
            }
        }
    }

    /// A Parse that the server refused or skipped did not happen; nor did a DEALLOCATE.
    private mutating func forgetRefused(_ slot: Slot) {
        switch slot {
        case .prepare(let statement): self.prepared[statement.name] = nil
        case .deallocate(let name, let prepared): self.prepared[name] = prepared
        case .begin, .settings, .transactionID, .query, .commit, .rollback: break
        }
    }

    // MARK: Simple protocol

    /// Runs SQL text of one or more statements; their rows are dropped.
    mutating func execute(_ sql: String, _ deadline: BootTime) throws(PostgresError) {
        // 1 when the connection is idle, which it is between requests.
        guard PQexitPipelineMode(self.connection) == 1 else { throw self.lost(self.libpqMessage) }
        guard PQsendQuery(self.connection, sql) == 1 else { throw self.lost(self.libpqMessage) }
        var failure: PostgresError?
        do throws(PostgresError) {
            while let result = try self.nextResult(deadline) {
                switch result.status {
                case PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_EMPTY_QUERY:
                    break
                case PGRES_FATAL_ERROR:
                    let error = result.error(queryIndex: nil)
                    if result.endsSession { throw self.lost(error.message, sqlstate: error.sqlstate) }
                    if failure == nil { failure = error }
                default:
                    throw self.lost("unexpected answer: \(String(cString: PQresStatus(result.status)))")
                }
            }
        } catch {
            var lost = error
            lost.isOutcomeUnknown = failure == nil
            throw lost
        }
        guard PQenterPipelineMode(self.connection) == 1 else { throw self.lost(self.libpqMessage) }
        if let failure {
            try self.leaveFailedTransaction(deadline)
            throw failure
        }
    }

    // MARK: Notifications

    /// Reads what the server sent unasked.
    ///
    /// - Returns: false if the connection is lost.
    mutating func consumeIdleInput() -> Bool {
        if PQconsumeInput(self.connection) == 0 { self.inputEnded = true }
        // PQisBusy parses what was read.
        _ = PQisBusy(self.connection)
        return self.isUsable
    }

    /// The next NOTIFY that has arrived: channel and payload.
    func nextNotification() -> (channel: String, payload: String)? {
        // NULL when there is none; else ours to free.
        guard let notification = PQnotifies(self.connection) else { return nil }
        defer { PQfreemem(notification) }
        return (String(cString: notification.pointee.relname), String(cString: notification.pointee.extra))
    }

    // MARK: Waiting

    var socket: Int32 { PQsocket(self.connection) }
    var isUsable: Bool { !self.inputEnded && PQstatus(self.connection) == CONNECTION_OK }

    func deadline(_ timeout: Duration?) -> BootTime { BootTime.now + (timeout ?? self.requestTimeout) }

    /// The next result of PQgetResult, once it can be had without blocking.
    private mutating func nextResult(_ deadline: BootTime) throws(PostgresError) -> LibpqResult? {
        while PQisBusy(self.connection) == 1 {
            if self.inputEnded { throw self.lost("the server closed the connection") }
            // 0: all sent; 1: more to send; -1: failed, and what the server said before may still be read.
            let flushed = PQflush(self.connection)
            let events = flushed == 1 ? Int16(POLLIN | POLLOUT) : Int16(POLLIN)
            do throws(PostgresError) {
                guard try Self.wait(PQsocket(self.connection), events, until: deadline) else {
                    throw PostgresError(.connectionLost, "the server did not answer in time")
                }
            } catch {
                throw self.lost(error.message)
            }
            if PQconsumeInput(self.connection) == 0 || flushed == -1 { self.inputEnded = true }
        }
        return PQgetResult(self.connection).map { LibpqResult(owning: $0) }
    }

    /// - Returns: false when the deadline has passed.
    private static func wait(_ socket: Int32, _ events: Int16, until deadline: BootTime) throws(PostgresError) -> Bool {
        // -1 after libpq dropped the socket; poll ignores negative descriptors and would sleep.
        guard socket >= 0 else { throw PostgresError(.connectionLost, "the connection is closed") }
        while true {
            let milliseconds = max(0, (deadline - BootTime.now).wholeMicroseconds / 1000)
            var entry = pollfd(fd: socket, events: events, revents: 0)
            let count = poll(&entry, 1, Int32(clamping: milliseconds + 1))
            if count > 0 { return true }
            // EINTR: again. EFAULT, EINVAL can't be; ENOMEM: as good as lost.
            if count < 0 && errno != EINTR { throw PostgresError(.connectionLost, "poll: \(SystemFile.lastError)") }
            if count == 0 && BootTime.now >= deadline { return false }
        }
    }

    /// Marks the session as unusable and makes the error for it.
    private mutating func lost(
        _ message: String, sqlstate: String? = nil, code: PostgresError.Code = .connectionLost
    ) -> PostgresError {
        self.inputEnded = true
        return PostgresError(code, message, sqlstate: sqlstate)
    }

    private var libpqMessage: String {
        PQerrorMessage(self.connection).map { String(cString: $0).trimmingASCIIWhitespace() } ?? "unknown error"
    }
}

/// Notices and warnings are not errors; the server's log has them.
private func ignoreNotice(_: UnsafeMutableRawPointer?, _: OpaquePointer?) {}
