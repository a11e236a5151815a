/// Why something asked of PostgreSQL did not come back with an answer.
///
/// Callers decide by `code`, `sqlstate` and the three questions below, never by `message`.
public struct PostgresError: Error, Sendable, CustomStringConvertible {
    /// What kind of failure it is.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Wrapped: Hashable, Sendable {
            case connectFailed, connectionLost, server, timedOut, decoding, closed, overloaded, invalidParameter
            case embedded
        }
        private var wrapped: Wrapped

        /// No connection could be made. Nothing was sent.
        public static let connectFailed = Code(wrapped: .connectFailed)
        /// The connection ended, or its server stayed silent past the deadline, while it was in use.
        public static let connectionLost = Code(wrapped: .connectionLost)
        /// The server refused a statement; `sqlstate` says why. The transaction is rolled back.
        public static let server = Code(wrapped: .server)
        /// No connection of the pool came free in time. Nothing was sent.
        public static let timedOut = Code(wrapped: .timedOut)
        /// A value has another type or shape than the code expects.
        public static let decoding = Code(wrapped: .decoding)
        /// The connection or the pool was closed by this process. Nothing was sent.
        public static let closed = Code(wrapped: .closed)
        /// Too many requests wait already. Nothing was sent.
        public static let overloaded = Code(wrapped: .overloaded)
        /// A parameter can't be encoded, or its type is not the one that the statement was prepared with.
        public static let invalidParameter = Code(wrapped: .invalidParameter)
        /// The embedded PostgreSQL could not be set up, started or stopped.
        public static let embedded = Code(wrapped: .embedded)

        public var description: String { "\(self.wrapped)" }
    }

    public var code: Code
    /// The five characters of the server's error code (PostgreSQL manual, appendix A).
    public var sqlstate: String?
    /// For logs. Never holds a password; may hold values of a failed row.
    public var message: String
    /// The server's DETAIL and the constraint's name, where there are any.
    public var detail: String?
    /// The name of the violated constraint (class 23).
    public var constraint: String?
    /// Which of the request's queries failed, from 0; `nil` if none in particular did.
    public var queryIndex: Int?
    /// The transaction may have been committed: the connection was lost after its COMMIT could have left, and before
    /// its answer was read.
    public var isOutcomeUnknown: Bool
    /// Nobody but an operator can mend it: the connection string is wrong, or the server doesn't know us, or it is one that
    /// can't serve us. With `connectFailed` only.
    public var isMisconfiguration = false
    /// With `isOutcomeUnknown`: what `pg_current_xact_id()` answered, if that arrived. For `pg_xact_status`.
    public var transactionID: Int64?

    public init(
        _ code: Code, _ message: String, sqlstate: String? = nil, detail: String? = nil, constraint: String? = nil,
        queryIndex: Int? = nil, isOutcomeUnknown: Bool = false, transactionID: Int64? = nil
    ) {
        self.code = code
        self.message = message
        self.sqlstate = sqlstate
        self.detail = detail
        self.constraint = constraint
        self.queryIndex = queryIndex
        self.isOutcomeUnknown = isOutcomeUnknown
        self.transactionID = transactionID
    }

    /// The first two characters of the SQLSTATE, e.g. `23`.
    public var sqlstateClass: String? { self.sqlstate.map { String($0.prefix(2)) } }

    /// The same transaction, sent again, may well succeed: 40001 serialization_failure, 40P01 deadlock_detected, 55P03
    /// lock_not_available. It was rolled back.
    public var isSerialization: Bool {
        self.code == .server && (self.sqlstate == "40001" || self.sqlstate == "40P01" || self.sqlstate == "55P03")
    }

    /// The database rather than the statement is the trouble: pause and reconnect. A lost or failed connection, and
    /// classes 08 connection exception, 53 insufficient resources and 57 operator intervention (a statement_timeout
    /// too).
    public var isConnectionClass: Bool {
        if self.code == .connectFailed || self.code == .connectionLost || self.code == .timedOut { return true }
        let sqlstateClass = self.sqlstateClass
        return sqlstateClass == "08" || sqlstateClass == "53" || sqlstateClass == "57"
    }

    /// What a start waits for, because it may pass: a database that can't be reached, is full or starting up (also as a
    /// pooler says it, 08P01), or takes no writes (25006), and conflicts.
    public var mayPass: Bool {
        if self.isMisconfiguration { return false }
        return self.isConnectionClass || self.isSerialization || self.sqlstate == "25006"
    }

    public var description: String {
        var text = "\(self.code)"
        if let sqlstate = self.sqlstate { text += " \(sqlstate)" }
        text += ": \(self.message)"
        if let detail = self.detail { text += " (\(detail))" }
        if self.isOutcomeUnknown { text += " [outcome unknown]" }
        return text
    }

    static func decoding(_ message: String) -> PostgresError { PostgresError(.decoding, message) }
}
