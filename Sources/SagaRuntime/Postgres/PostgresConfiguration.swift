import CLibpq

/// How to reach PostgreSQL, and how long to wait for it.
public struct PostgresConfiguration: Sendable {
    /// A libpq URI (`postgresql://…`) or conninfo string (`host=… dbname=…`). May hold a password: never log it.
    public var conninfo: String
    /// Shown in pg_stat_activity, unless `conninfo` names one.
    public var applicationName: String
    /// For the whole of connecting, name look-up not counted. Default: 5 s.
    public var connectTimeout: Duration
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

    /// The planner settings of `engine(conninfo:applicationName:isTransactionPooled:)`.
    public static let engineSettings: [(name: String, value: String)] = [
        ("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"), ("jit", "off"),
    ]

    /// Every `SET` of a new session.
    var allSettings: [(name: String, value: String)] {
        func milliseconds(_ duration: Duration) -> String { String(max(0, duration.wholeMicroseconds / 1000)) }
        return [
            ("statement_timeout", milliseconds(self.statementTimeout)),
            ("lock_timeout", milliseconds(self.lockTimeout)),
            ("idle_in_transaction_session_timeout", milliseconds(self.idleInTransactionTimeout)),
        ] + self.sessionSettings
    }

    /// Keywords and values for PQconnectStartParams: later ones win, so ours before `conninfo` are defaults.
    var connectParameters: [(keyword: String, value: String)] {
        [
            ("fallback_application_name", self.applicationName), ("keepalives", "1"), ("keepalives_idle", "10"),
            ("keepalives_interval", "5"), ("keepalives_count", "3"),
            ("tcp_user_timeout", String(max(0, self.tcpUserTimeout.wholeMicroseconds / 1000))),
            ("dbname", self.conninfo),
            ("client_encoding", "UTF8"),
        ]
    }

    /// What is wrong with a connection string, in words that repeat none of it; `nil` if libpq can read it.
    public static func problem(inConninfo conninfo: String) -> String? {
        let isURI = conninfo.hasPrefix("postgresql://") || conninfo.hasPrefix("postgres://")
        guard isURI || conninfo.utf8.contains(UInt8(ascii: "=")) else {
            return "must be a URI (postgresql://user@host/database) or a conninfo string (host=… dbname=…)"
        }
        if conninfo.utf8.contains(0) { return "must not contain NUL" }
        var message: UnsafeMutablePointer<CChar>?
        // NULL on failure; then `message` is set and freed by us with PQfreemem. It quotes the string: not passed on.
        guard let options = PQconninfoParse(conninfo, &message) else {
            PQfreemem(message)
            return "is not a valid \(isURI ? "URI" : "conninfo string") for PostgreSQL"
        }
        PQconninfoFree(options)
        return nil
    }
}
