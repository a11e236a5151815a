import Synchronization

/// A fixed number of connections, shared by many tasks.
///
/// A request borrows a connection for its own length. Who finds none free waits in line; who finds the database away is
/// told so at once, until the pause after the last failed attempt is over. Lost connections are replaced when they are
/// next needed.
public final class PostgresPool: Sendable {
    private struct Waiter {
        var id: UInt64
        var deadline: BootTime
        var turn: CheckedContinuation<PostgresError?, Never>
    }

    private struct State {
        /// Connections that nobody uses, the latest used last.
        var idle: [PostgresConnection] = []
        /// How many borrowers there may be still.
        var permits: Int
        var waiters: [Waiter] = []
        var nextWaiterID: UInt64 = 0
        var isShutDown = false
        /// Runs while somebody waits.
        var timer: Task<Void, Never>?
        var failure: PostgresError?
        var failures = 0
        var retryAt = BootTime(nanoseconds: 0)
        var closers: [CheckedContinuation<Void, Never>] = []
    }

    public let size: Int
    private let configuration: PostgresConfiguration
    let surroundings: Surroundings
    private let maximumWaiters: Int
    private let acquireTimeout: Duration
    private let state: Mutex<State>

    private static let initialPause = Duration.milliseconds(20)
    private static let maximumPause = Duration.milliseconds(500)
    private static let timerInterval = Duration.milliseconds(50)

    /// Makes a pool; it connects when it is first used.
    ///
    /// - Parameters:
    ///   - size: connections, at most.
    ///   - maximumWaiters: tasks that may wait for one; beyond that `overloaded` is thrown at once.
    ///   - acquireTimeout: the longest wait for a connection, the time to make one included.
    public init(
        _ configuration: PostgresConfiguration, size: Int, maximumWaiters: Int, acquireTimeout: Duration = .seconds(1)
    ) {
        var configuration = configuration
        configuration.connectTimeout = min(configuration.connectTimeout, acquireTimeout)
        self.configuration = configuration
        self.surroundings = configuration.surroundings
        self.size = max(1, size)
        self.maximumWaiters = max(0, maximumWaiters)
        self.acquireTimeout = acquireTimeout
        self.state = Mutex(State(permits: max(1, size)))
    }

    deinit { self.state.withLock { $0.timer?.cancel() } }

    // MARK: Requests

    /// As `PostgresConnection.run`.
    ///
    /// - Throws: besides that one's errors `connectFailed`, `timedOut`, `overloaded` and `closed`, with nothing sent.
    public nonisolated(nonsending) func run(
        _ queries: [SQLQuery], timeout: Duration? = nil
    ) async throws(PostgresError) -> [SQLRows] {
        try await self.withConnection { connection async throws(PostgresError) in
            try await connection.run(queries, timeout: timeout)
        }
    }

    /// Runs one query in a transaction of its own.
    public nonisolated(nonsending) func run(
        _ query: SQLQuery, timeout: Duration? = nil
    ) async throws(PostgresError) -> SQLRows {
        try await self.withConnection { connection async throws(PostgresError) in
            try await connection.run(query, timeout: timeout)
        }
    }

    /// Runs one query for a call that ends at `deadline`: PostgreSQL gives the query up 100 ms later (`statement_timeout`,
    /// SQLSTATE 57014), so that the call has ended as one that is late, or after the configuration's `statementTimeout` if
    /// that is sooner.
    public nonisolated(nonsending) func run(
        _ query: SQLQuery, until deadline: ContinuousClock.Instant?
    ) async throws(PostgresError) -> SQLRows {
        try await self.run([query], until: deadline)[0]
    }

    /// The same for the queries of a pipeline, each of which has that time.
    public nonisolated(nonsending) func run(
        _ queries: [SQLQuery], until deadline: ContinuousClock.Instant?
    ) async throws(PostgresError) -> [SQLRows] {
        try await self.withConnection { connection async throws(PostgresError) in
            // By now the wait for a connection is over.
            let rest = deadline.map { self.surroundings.rest(until: $0) + .milliseconds(100) }
            guard let rest, rest < self.configuration.statementTimeout else { return try await connection.run(queries) }
            var parameters = SQLParameters()
            parameters.append("\(max(1, rest.wholeMicroseconds / 1000))")
            return Array(try await connection.run([SQLQuery(Self.limitStatements, parameters)] + queries).dropFirst())
        }
    }

    /// For the rest of the transaction, which is the pipeline.
    private static let limitStatements = SQLStatement(
        "pool_limit_statements", "SELECT set_config('statement_timeout', $1, true)")

    /// As `PostgresConnection.transaction`.
    public nonisolated(nonsending) func transaction(
        _ queries: [SQLQuery], timeout: Duration? = nil
    ) async throws(PostgresError) -> [SQLRows] {
        try await self.withConnection { connection async throws(PostgresError) in
            try await connection.transaction(queries, timeout: timeout)
        }
    }

    /// As `PostgresConnection.execute`. What it sets stays set in a connection that others will use.
    public nonisolated(nonsending) func execute(
        _ sql: String, timeout: Duration? = nil
    ) async throws(PostgresError) {
        try await self.withConnection { connection async throws(PostgresError) in
            try await connection.execute(sql, timeout: timeout)
        }
    }

    /// Lends one connection to `body`.
    public nonisolated(nonsending) func withConnection<Value>(
        _ body: (PostgresConnection) async throws(PostgresError) -> Value
    ) async throws(PostgresError) -> Value {
        let connection = try await self.acquire()
        do throws(PostgresError) {
            let value = try await body(connection)
            self.release(connection)
            return value
        } catch {
            self.release(connection)
            throw error
        }
    }

    /// Refuses new borrowers and those in line, waits for those that hold a connection, and closes all.
    public func shutdown() async {
        let (idle, waiters) = self.state.withLock { state in
            state.isShutDown = true
            state.timer?.cancel()
            state.timer = nil
            defer {
                state.idle = []
                state.waiters = []
            }
            return (state.idle, state.waiters)
        }
        for waiter in waiters { waiter.turn.resume(returning: Self.closedError) }
        for connection in idle { await connection.close() }
        await withCheckedContinuation { continuation in
            let isDone = self.state.withLock { state in
                if state.permits == self.size { return true }
                state.closers.append(continuation)
                return false
            }
            if isDone { continuation.resume() }
        }
    }

    // MARK: Borrowing

    private enum Admission {
        case use(PostgresConnection)
        case connect
        case wait
        case refuse(PostgresError)
    }

    private nonisolated(nonsending) func acquire() async throws(PostgresError) -> PostgresConnection {
        let start = self.surroundings.now
        switch self.state.withLock({ Self.admit(&$0, now: start, maximumWaiters: self.maximumWaiters) }) {
        case .use(let connection):
            return connection
        case .connect:
            return try await self.connect()
        case .refuse(let error):
            throw error
        case .wait:
            break
        }
        if let error = await self.waitForTurn(since: start) { throw error }
        // The permit is ours now; what else it takes is decided anew.
        switch self.state.withLock({ Self.useOrConnect(&$0, now: self.surroundings.now) }) {
        case .use(let connection):
            return connection
        case .connect:
            return try await self.connect()
        case .refuse(let error):
            self.giveBackPermit()
            throw error
        case .wait:
            self.giveBackPermit()
            throw Self.timedOutError
        }
    }

    private static func admit(_ state: inout State, now: BootTime, maximumWaiters: Int) -> Admission {
        if state.isShutDown { return .refuse(Self.closedError) }
        if state.permits == 0 || !state.waiters.isEmpty {
            if state.waiters.count < maximumWaiters { return .wait }
            return .refuse(PostgresError(.overloaded, "too many requests wait for a database connection"))
        }
        let admission = Self.useOrConnect(&state, now: now)
        if case .refuse = admission { return admission }
        state.permits -= 1
        return admission
    }

    private static func useOrConnect(_ state: inout State, now: BootTime) -> Admission {
        if state.isShutDown { return .refuse(Self.closedError) }
        while let connection = state.idle.popLast() {
            if connection.isOpen { return .use(connection) }
        }
        if let failure = state.failure, now < state.retryAt { return .refuse(failure) }
        return .connect
    }

    /// - Returns: `nil` with a permit in hand, or why there is none.
    private nonisolated(nonsending) func waitForTurn(since start: BootTime) async -> PostgresError? {
        let id = self.state.withLock { state in
            state.nextWaiterID &+= 1
            return state.nextWaiterID
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { turn in
                let waiter = Waiter(id: id, deadline: start + self.acquireTimeout, turn: turn)
                let answer: PostgresError?? = self.state.withLock { state in
                    if state.isShutDown { return .some(Self.closedError) }
                    if Task.isCancelled { return .some(Self.cancelledError) }
                    if state.permits > 0 {
                        // Given back since we looked.
                        state.permits -= 1
                        return .some(nil)
                    }
                    state.waiters.append(waiter)
                    if state.timer == nil { state.timer = self.makeTimer() }
                    return nil
                }
                if let answer { turn.resume(returning: answer) }
            }
        } onCancel: {
            let waiter = self.state.withLock { state in
                state.waiters.firstIndex { $0.id == id }.map { state.waiters.remove(at: $0) }
            }
            waiter?.turn.resume(returning: Self.cancelledError)
        }
    }

    /// Ends waits whose time is over. One task for all waiters, alive while there are any.
    private func makeTimer() -> Task<Void, Never> {
        Task { [weak self, surroundings] in
            while !Task.isCancelled {
                try? await surroundings.sleep(for: Self.timerInterval)
                guard let self, self.expireWaiters() else { return }
            }
        }
    }

    /// - Returns: false when nobody waits any more.
    private func expireWaiters() -> Bool {
        let now = self.surroundings.now
        let (expired, goesOn) = self.state.withLock { state in
            let expired = state.waiters.prefix { $0.deadline <= now }
            state.waiters.removeFirst(expired.count)
            if state.waiters.isEmpty { state.timer = nil }
            return (Array(expired), !state.waiters.isEmpty)
        }
        for waiter in expired { waiter.turn.resume(returning: Self.timedOutError) }
        return goesOn
    }

    /// Makes a connection under a permit that the caller holds; gives the permit back on failure.
    private nonisolated(nonsending) func connect() async throws(PostgresError) -> PostgresConnection {
        do throws(PostgresError) {
            let connection = try await PostgresConnection.connect(self.configuration)
            self.state.withLock { state in
                state.failure = nil
                state.failures = 0
            }
            return connection
        } catch {
            let now = self.surroundings.now
            self.state.withLock { state in
                state.failure = error
                state.failures += 1
                let pause = min(Self.initialPause * (1 << min(state.failures - 1, 10)), Self.maximumPause)
                state.retryAt = now + pause
            }
            self.giveBackPermit()
            throw error
        }
    }

    private func release(_ connection: PostgresConnection) {
        // Not kept, it is closed with its last reference.
        self.state.withLock { state in
            if !state.isShutDown && connection.isOpen { state.idle.append(connection) }
        }
        self.giveBackPermit()
    }

    private func giveBackPermit() {
        let (next, closers): (Waiter?, [CheckedContinuation<Void, Never>]) = self.state.withLock { state in
            if !state.waiters.isEmpty { return (state.waiters.removeFirst(), []) }
            state.permits += 1
            guard state.isShutDown, state.permits == self.size else { return (nil, []) }
            defer { state.closers = [] }
            return (nil, state.closers)
        }
        next?.turn.resume(returning: nil)
        for closer in closers { closer.resume() }
    }

    private static let closedError = PostgresError(.closed, "the connection pool is shut down")
    private static let cancelledError = PostgresError(.closed, "cancelled while waiting for a database connection")
    private static let timedOutError = PostgresError(.timedOut, "no database connection came free in time")
}
