/// One connection to PostgreSQL, over libpq, on a thread of its own.
///
/// Requests are served one after the other, in the order in which they came. Cancelling a waiting task does not cancel
/// its request, which is bounded by the time-outs of the configuration. A connection that was lost stays lost.
public final class PostgresConnection: Sendable {
    /// What serves a connection's requests.
    private enum Line {
        case thread(ConnectionMailbox)
        case simulated(any SimulatedSession)
    }

    private let line: Line
    private let info: LibpqSession.Info
    private let configuration: PostgresConfiguration

    /// The process id of the server's backend, for `pg_terminate_backend`; 0 behind a transaction pooler.
    public var backendPID: Int32 { self.info.backendPID }
    /// When that backend started: with the process id it names the backend for good.
    public var backendStart: Timestamp { self.info.backendStart }
    /// e.g. 150020 for 15.20.
    public var serverVersion: Int32 { self.info.serverVersion }
    /// False once the connection is lost or closed. True does not promise that the next request succeeds.
    public var isOpen: Bool {
        switch self.line {
        case .thread(let mailbox): mailbox.isOpen
        case .simulated(let session): session.isOpen
        }
    }

    private init(_ line: Line, _ info: LibpqSession.Info, _ configuration: PostgresConfiguration) {
        self.line = line
        self.info = info
        self.configuration = configuration
    }

    deinit {
        switch self.line {
        case .thread(let mailbox): mailbox.close()
        case .simulated(let session): session.abandon()
        }
    }

    /// Connects to the first server of the connection string that lets us in.
    ///
    /// - Throws: `connectFailed`.
    public nonisolated(nonsending) static func connect(
        _ configuration: PostgresConfiguration
    ) async throws(PostgresError) -> PostgresConnection {
        if let session = try await configuration.surroundings.session(configuration) {
            return PostgresConnection(.simulated(session), session.info, configuration)
        }
        let string = try ConnectionString.of(configuration)
        let race = ConnectionRace(
            connectTimeout: string.connectTimeout ?? configuration.connectTimeout,
            rounds: max(1, configuration.connectRounds),
            attempt: { host in await Self.attempt(configuration, string, to: host) })
        return try await race.run(string.hosts)
    }

    private static func attempt(
        _ configuration: PostgresConfiguration, _ string: ConnectionString, to host: ConnectionString.Host
    ) async -> Result<PostgresConnection, PostgresError> {
        do throws(PostgresError) {
            let mailbox = try ConnectionMailbox()
            let thread = ConnectionThread(configuration: configuration, string: string, host: host, mailbox: mailbox)
            let result: Result<LibpqSession.Info, PostgresError> = await withCheckedContinuation { connected in
                do throws(PostgresError) {
                    try DedicatedThread.start(name: "postgres") { thread.run(connected) }
                } catch {
                    connected.resume(returning: .failure(error))
                }
            }
            return .success(PostgresConnection(.thread(mailbox), try result.get(), configuration))
        } catch {
            return .failure(error)
        }
    }

    /// Runs the queries as one pipeline and one implicit transaction: all or none take effect.
    ///
    /// - Parameter timeout: instead of the configuration's `requestTimeout`; when it has passed the connection is lost.
    /// - Returns: one result per query, in order.
    /// - Throws: the first error. After `server` the connection can be used on.
    public nonisolated(nonsending) func run(
        _ queries: [SQLQuery], timeout: Duration? = nil
    ) async throws(PostgresError) -> [SQLRows] {
        try await self.perform(.pipeline(queries, .implicit), timeout)
    }

    /// Runs one query in a transaction of its own.
    public nonisolated(nonsending) func run(
        _ query: SQLQuery, timeout: Duration? = nil
    ) async throws(PostgresError) -> SQLRows {
        try await self.perform(.pipeline([query], .implicit), timeout)[0]
    }

    /// Runs BEGIN, the queries and COMMIT as one pipeline with one Sync.
    ///
    /// - Parameters:
    ///   - tracksOutcome: asks for the transaction's id first, with an answer of its own, so that an error with
    ///     `isOutcomeUnknown` nearly always carries it.
    ///   - timeout: instead of the configuration's `requestTimeout`; when it has passed the connection is lost.
    /// - Returns: the results of `queries` only.
    /// - Throws: the first error. After `server` nothing was written and the connection can be used on.
    public nonisolated(nonsending) func transaction(
        _ queries: [SQLQuery], tracksOutcome: Bool = false, timeout: Duration? = nil
    ) async throws(PostgresError) -> [SQLRows] {
        try await self.perform(.pipeline(queries, tracksOutcome ? .tracked : .explicit), timeout)
    }

    /// Runs SQL text of one or more statements by the simple protocol: DDL, SET. Their rows are dropped.
    public nonisolated(nonsending) func execute(
        _ sql: String, timeout: Duration? = nil
    ) async throws(PostgresError) {
        _ = try await self.perform(.simple(sql), timeout)
    }

    /// Another connection, made in the same way.
    nonisolated(nonsending) func another() async throws(PostgresError) -> PostgresConnection {
        try await Self.connect(self.configuration)
    }

    /// For the beginning of a transaction that `execute` runs: behind a transaction pooler what `run` sets by itself, else
    /// nothing.
    var localSettings: String {
        guard self.configuration.isTransactionPooled else { return "" }
        func quoted(_ text: String) -> String {
            "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''") + "'"
        }
        return self.configuration.settings(serverVersion: self.serverVersion)
            .map { "SET LOCAL \($0.name) = \($0.name == "search_path" ? $0.value : quoted($0.value));" }
            .joined(separator: " ")
    }

    /// Lets statements, and waits for locks, last as long as they need meanwhile. Behind a transaction pooler the session's
    /// settings are not ours.
    nonisolated(nonsending) func withoutTimeouts(
        _ body: (PostgresConnection) async throws(PostgresError) -> Void
    ) async throws(PostgresError) {
        if self.configuration.isTransactionPooled { return try await body(self) }
        try await self.execute("SET statement_timeout = 0; SET lock_timeout = 0")
        try await body(self)
        let limits = self.configuration.settings(serverVersion: self.serverVersion)
            .filter { ["statement_timeout", "lock_timeout"].contains($0.name) }
        try await self.execute(limits.map { "SET \($0.name) = \($0.value)" }.joined(separator: "; "))
    }

    /// LISTENs on a channel. The stream holds the payloads; it throws when the connection is lost, or when more than
    /// 4,096 payloads wait to be read. A second call for the same channel ends the first one's stream.
    public nonisolated(nonsending) func notifications(
        channel: String
    ) async throws(PostgresError) -> AsyncThrowingStream<String, any Error> {
        let (stream, continuation) = AsyncThrowingStream.makeStream(
            of: String.self, bufferingPolicy: .bufferingOldest(4096))
        do throws(PostgresError) {
            _ = try await self.perform(.listen(channel: channel, continuation), nil)
        } catch {
            continuation.finish(throwing: error)
            throw error
        }
        return stream
    }

    /// Says goodbye after the request that runs now, and waits for the end. Requests that wait fail with `closed`.
    public nonisolated(nonsending) func close() async {
        switch self.line {
        case .thread(let mailbox): await withCheckedContinuation { mailbox.close(resuming: $0) }
        case .simulated(let session): await session.close()
        }
    }

    /// Cuts the connection without goodbye, also in the middle of a request.
    public func severForTesting() {
        if case .thread(let mailbox) = self.line { mailbox.sever() }
    }

    /// The next request takes effect on the server, and then its reply is lost and the connection with it.
    public func loseNextReplyForTesting() {
        if case .thread(let mailbox) = self.line { mailbox.loseNextReply() }
    }

    private nonisolated(nonsending) func perform(
        _ work: ConnectionMailbox.Work, _ timeout: Duration?
    ) async throws(PostgresError) -> [SQLRows] {
        switch self.line {
        case .thread(let mailbox):
            let result: Result<[SQLRows], PostgresError> = await withCheckedContinuation { reply in
                mailbox.post(ConnectionMailbox.Request(work: work, timeout: timeout, reply: reply))
            }
            return try result.get()
        case .simulated(let session):
            return try await session.perform(work, timeout: timeout).get()
        }
    }
}
