/// How to reach PostgreSQL, and how long to wait for it.
public struct PostgresConfiguration: Sendable {
    /// A libpq URI (`postgresql://…`) or conninfo string (`host=… dbname=…`). May hold a password: never log it.
    public var conninfo: String
    /// Shown in pg_stat_activity, unless `conninfo` names one.
    public var applicationName: String
    /// How long one server may take to let a connection in and to have it set up; `connect_timeout` in `conninfo` goes
    /// before it. Where several servers are named each has that long, and the next one starts a second after the one before
    /// (`ConnectionRace`). Default: 5 s.
    public var connectTimeout: Duration
    /// How long a request waits for a connection of a pool to come free, or to be made. An attempt that takes longer goes on
    /// for the requests that come later. Default: 1 s.
    public var acquireTimeout: Duration = .seconds(1)
    /// How often the servers are tried while none of them answers. Default: once.
    public var connectRounds = 1
    /// `statement_timeout` on the server. Default: 10 s.
    public var statementTimeout: Duration
    /// `lock_timeout` on the server. Default: 5 s.
    public var lockTimeout: Duration
    /// How long a whole request (a pipeline) may go without its answer before the connection counts as lost, whatever
    /// the server does. Default: 15 s.
    public var requestTimeout: Duration
    /// `idle_in_transaction_session_timeout` on the server: frees what a stopped process holds. Default: 10 s.
    public var idleInTransactionTimeout: Duration
    /// How long data sent may stay unacknowledged (TCP_USER_TIMEOUT). Default: 10 s.
    public var tcpUserTimeout: Duration
    /// The schema of the tables, as a `search_path`; `nil`: the session's own. What role and database set must not lead
    /// to tables of another one.
    public var searchPath: String?
    /// Further `SET`s of each new session.
    public var sessionSettings: [(name: String, value: String)]
    /// Whether `conninfo` leads to a pooler that gives each transaction another session (PgBouncer's `pool_mode =
    /// transaction`). Statements are not prepared then, settings are made for each transaction, there is no LISTEN, and
    /// nobody knows which backend serves a connection. Default: false.
    public var isTransactionPooled: Bool
    /// Of whatever uses this: a simulator's, or the machine's.
    var surroundings = Surroundings.real

    public init(
        conninfo: String, applicationName: String = "devicerpc", connectTimeout: Duration = .seconds(5),
        statementTimeout: Duration = .seconds(10), lockTimeout: Duration = .seconds(5),
        requestTimeout: Duration = .seconds(15), idleInTransactionTimeout: Duration = .seconds(10),
        tcpUserTimeout: Duration = .seconds(10), sessionSettings: [(name: String, value: String)] = [],
        isTransactionPooled: Bool = false
    ) {
        self.conninfo = conninfo
        self.applicationName = applicationName
        self.connectTimeout = connectTimeout
        self.statementTimeout = statementTimeout
        self.lockTimeout = lockTimeout
        self.requestTimeout = requestTimeout
        self.idleInTransactionTimeout = idleInTransactionTimeout
        self.tcpUserTimeout = tcpUserTimeout
        self.sessionSettings = sessionSettings
        self.isTransactionPooled = isTransactionPooled
    }

    /// What the engine's connections use: plans are made once, and by index. A plan that was chosen while a day's
    /// partition was empty stays, and costs 30 times more once it is full.
    public static func engine(
        conninfo: String, applicationName: String = "devicerpc", isTransactionPooled: Bool = false
    ) -> PostgresConfiguration {
        PostgresConfiguration(
            conninfo: conninfo, applicationName: applicationName, sessionSettings: Self.engineSettings,
            isTransactionPooled: isTransactionPooled)
    }

    /// The planner settings of `engine(conninfo:applicationName:isTransactionPooled:)`, those included that are on
    /// unless somebody turned them off.
    public static let engineSettings: [(name: String, value: String)] = [
        ("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"), ("jit", "off"), ("enable_nestloop", "on"), ("enable_indexscan", "on"),
        ("enable_indexonlyscan", "on"), ("enable_bitmapscan", "on"), ("enable_sort", "on"), ("enable_hashagg", "on"),
        ("enable_material", "on"), ("enable_partition_pruning", "on"), ("max_parallel_workers_per_gather", "0"),
    ]

    /// What every session needs whatever server, database and role set by default (docs/database.md has the reasons).
    /// `default_transaction_read_only` is not among them: whoever sets it means us too.
    private static let needs: [(name: String, value: String, sinceVersion: Int32)] = [
        ("default_transaction_isolation", "read committed", 0), ("default_transaction_deferrable", "off", 0),
        ("idle_session_timeout", "0", 140_000), ("transaction_timeout", "0", 170_000), ("exit_on_error", "off", 0),
        ("DateStyle", "ISO, MDY", 0), ("IntervalStyle", "postgres", 0), ("TimeZone", "UTC", 0),
        ("bytea_output", "hex", 0), ("extra_float_digits", "1", 0), ("standard_conforming_strings", "on", 0),
        ("array_nulls", "on", 0), ("transform_null_equals", "off", 0), ("client_min_messages", "warning", 0),
    ]

    /// Every setting of a new session, or of each transaction behind a transaction pooler.
    func settings(serverVersion: Int32) -> [(name: String, value: String)] {
        func milliseconds(_ duration: Duration) -> String { String(max(0, duration.wholeMicroseconds / 1000)) }
        var settings = [
            (name: "statement_timeout", value: milliseconds(self.statementTimeout)),
            (name: "lock_timeout", value: milliseconds(self.lockTimeout)),
            (name: "idle_in_transaction_session_timeout", value: milliseconds(self.idleInTransactionTimeout)),
        ]
        if let searchPath { settings.append((name: "search_path", value: searchPath)) }
        settings += Self.needs.filter { serverVersion >= $0.sinceVersion }.map { (name: $0.name, value: $0.value) }
        return settings + self.sessionSettings
    }

    /// Keywords and values for PQconnectStartParams: later ones win, so ours before the string's are defaults.
    func connectParameters(
        _ string: ConnectionString, _ host: ConnectionString.Host
    ) -> [(keyword: String, value: String)] {
        var parameters = [
            (keyword: "fallback_application_name", value: self.applicationName), (keyword: "keepalives", value: "1"),
            (keyword: "keepalives_idle", value: "10"), (keyword: "keepalives_interval", value: "5"),
            (keyword: "keepalives_count", value: "3"),
            (keyword: "tcp_user_timeout", value: String(max(0, self.tcpUserTimeout.wholeMicroseconds / 1000))),
        ]
        parameters += string.options
        if let name = host.name { parameters.append((keyword: "host", value: name)) }
        if let address = host.address { parameters.append((keyword: "hostaddr", value: address)) }
        if let port = host.port { parameters.append((keyword: "port", value: port)) }
        parameters.append((keyword: "client_encoding", value: "UTF8"))
        return parameters
    }

    /// What is wrong with a connection string, in words that repeat none of it; `nil` if it can lead to a server.
    public static func problem(inConninfo conninfo: String) -> String? {
        do throws(ConnectionString.Problem) {
            _ = try ConnectionString(conninfo)
            return nil
        } catch {
            return error.text
        }
    }
}
