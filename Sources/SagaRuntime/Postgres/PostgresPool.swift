import Synchronization

/// A fixed number of connections, shared by many tasks.
///
/// A request borrows a connection for its own length. Who finds none free waits in line; who finds the database away is
/// told so at once, until the pause after the last failed attempt is over. Lost connections are replaced when they are
/// next needed.
///
/// The pool makes connections, not the requests: an attempt that takes longer than a request waits goes on, and the next
/// request has the connection.
public final class PostgresPool: Sendable {
    private typealias Turn = Result<PostgresConnection, PostgresError>

    private struct Waiter {
        var id: UInt64
        var deadline: BootTime
        var turn: CheckedContinuation<Turn, Never>
    }

    private struct State {
        /// Connections that nobody uses, the latest used last.
        var idle: [PostgresConnection] = []
        /// Connections that are lent out.
        var lent = 0
        /// Attempts under way.
        var connecting = 0
        var waiters: [Waiter] = []
        var nextWaiterID: UInt64 = 0
        var isShutDown = false
        /// Runs while somebody waits.
        var timer: Task<Void, Never>?
        var failure: PostgresError?
        var failures = 0
        var retryAt = BootTime(nanoseconds: 0)
        var closers: [CheckedContinuation<Void, Never>] = []

        /// Why no attempt is made now; nil if one may be.
        func refusal(_ now: BootTime) -> PostgresError? { now < self.retryAt ? self.failure : nil }

        mutating func openIdle() -> PostgresConnection? {
            while let connection = self.idle.popLast() {
                if connection.isOpen { return connection }
            }
            return nil
        }
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
    ///   - acquireTimeout: the longest wait for a connection; `nil`: as the configuration says.
    public init(
        _ configuration: PostgresConfiguration, size: Int, maximumWaiters: Int, acquireTimeout: Duration? = nil
    ) {
        self.configuration = configuration
        self.surroundings = configuration.surroundings
        self.size = max(1, size)
        self.maximumWaiters = max(0, maximumWaiters)
        self.acquireTimeout = acquireTimeout ?? configuration.acquireTimeout
        self.state = Mutex(State())
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
        for waiter in waiters { waiter.turn.resume(returning: .failure(Self.closedError)) }
        for connection in idle { await connection.close() }
        await withCheckedContinuation { continuation in
            let isDone = self.state.withLock { state in
                if state.lent == 0 { return true }
                state.closers.append(continuation)
                return false
            }
            if isDone { continuation.resume() }
        }
    }

    // MARK: Borrowing

    private enum Admission {
        case use(PostgresConnection)
        case wait(startsAttempt: Bool)
        case refuse(PostgresError)
    }

    private nonisolated(nonsending) func acquire() async throws(PostgresError) -> PostgresConnection {
        let start = self.surroundings.now
        switch self.state.withLock({ self.admit(&$0, now: start) }) {
        case .use(let connection):
            return connection
        case .wait(let startsAttempt):
            if startsAttempt { self.startAttempt() }
            return try await self.waitForTurn(since: start).get()
        case .refuse(let error):
            throw error
        }
    }

    private func admit(_ state: inout State, now: BootTime) -> Admission {
        if state.isShutDown { return .refuse(Self.closedError) }
        if state.waiters.isEmpty, let connection = state.openIdle() {
            state.lent += 1
            return .use(connection)
        }
        if state.lent + state.connecting < self.size {
            if let refusal = state.refusal(now) { return .refuse(refusal) }
            state.connecting += 1
            return .wait(startsAttempt: true)
        }
        // Those for whom an attempt is under way don't count as waiting in line.
        guard state.waiters.count < self.maximumWaiters + state.connecting else {
            return .refuse(PostgresError(.overloaded, "too many requests wait for a database connection"))
        }
        return .wait(startsAttempt: false)
    }

    private nonisolated(nonsending) func waitForTurn(since start: BootTime) async -> Turn {
        let id = self.state.withLock { state in
            state.nextWaiterID &+= 1
            return state.nextWaiterID
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { turn in
                let waiter = Waiter(id: id, deadline: start + self.acquireTimeout, turn: turn)
                let answer: Turn? = self.state.withLock { state in
                    if state.isShutDown { return .failure(Self.closedError) }
                    if Task.isCancelled { return .failure(Self.cancelledError) }
                    // Come free, or failed, since we looked.
                    if state.waiters.isEmpty, let connection = state.openIdle() {
                        state.lent += 1
                        return .success(connection)
                    }
                    if state.lent == 0, state.connecting == 0, let refusal = state.refusal(self.surroundings.now) {
                        return .failure(refusal)
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
            waiter?.turn.resume(returning: .failure(Self.cancelledError))
        }
    }

    /// Ends waits whose time is over, and starts attempts once a pause is. One task for all waiters, alive while there are
    /// any.
    private func makeTimer() -> Task<Void, Never> {
        Task { [weak self, surroundings] in
            while !Task.isCancelled {
                try? await surroundings.sleep(for: Self.timerInterval)
                guard let self, self.expireWaiters() else { return }
                self.serveWaiters()
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
        for waiter in expired { waiter.turn.resume(returning: .failure(Self.timedOutError)) }
        return goesOn
    }

    // MARK: Connecting

    /// Makes a connection; the attempt is counted in `connecting` already. It lasts as long as the configuration lets it,
    /// whoever waits.
    private func startAttempt() {
        Task {
            let result: Turn
            do throws(PostgresError) {
                result = .success(try await PostgresConnection.connect(self.configuration))
            } catch {
                result = .failure(error)
            }
            self.attemptEnded(result)
        }
    }

    private func attemptEnded(_ result: Turn) {
        let now = self.surroundings.now
        let unwanted: PostgresConnection? = self.state.withLock { state in
            state.connecting -= 1
            switch result {
            case .success(let connection):
                state.failure = nil
                state.failures = 0
                state.retryAt = now
                if state.isShutDown { return connection }
                state.idle.append(connection)
            case .failure(let error):
                state.failure = error
                state.failures += 1
                state.retryAt =
                    now + min(Self.initialPause * (1 << min(state.failures - 1, 10)), Self.maximumPause)
            }
            return nil
        }
        // Closed with its last reference.
        _ = unwanted
        self.serveWaiters()
    }

    private func release(_ connection: PostgresConnection) {
        let closers = self.state.withLock { state in
            state.lent -= 1
            // Not kept, it is closed with its last reference.
            if !state.isShutDown && connection.isOpen { state.idle.append(connection) }
            guard state.isShutDown, state.lent == 0 else { return [CheckedContinuation<Void, Never>]() }
            defer { state.closers = [] }
            return state.closers
        }
        for closer in closers { closer.resume() }
        self.serveWaiters()
    }

    /// Gives those in line what is there: connections, attempts, or the news that there will be none.
    private func serveWaiters() {
        let now = self.surroundings.now
        var served: [(Waiter, Turn)] = []
        let attempts = self.state.withLock { state -> Int in
            while !state.waiters.isEmpty, let connection = state.openIdle() {
                state.lent += 1
                served.append((state.waiters.removeFirst(), .success(connection)))
            }
            if state.waiters.isEmpty { return 0 }
            if let refusal = state.refusal(now) {
                // While somebody has a connection, or makes one, there is hope.
                if state.lent == 0, state.connecting == 0 {
                    served += state.waiters.map { ($0, .failure(refusal)) }
                    state.waiters = []
                }
                return 0
            }
            let attempts = min(state.waiters.count - state.connecting, self.size - state.lent - state.connecting)
            state.connecting += max(0, attempts)
            return max(0, attempts)
        }
        for (waiter, turn) in served { waiter.turn.resume(returning: turn) }
        for _ in 0..<attempts { self.startAttempt() }
    }

    private static let closedError = PostgresError(.closed, "the connection pool is shut down")
    private static let cancelledError = PostgresError(.closed, "cancelled while waiting for a database connection")
    private static let timedOutError = PostgresError(.timedOut, "no database connection came free in time")
}
