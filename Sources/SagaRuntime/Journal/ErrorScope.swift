/// What an error of the database is about: one record, or all of them (docs/architecture.md, "When a flush fails").
enum ErrorScope: Sendable, Hashable, CaseIterable {
    /// Two transactions met and this one gave way: the same again may well succeed.
    case conflict
    /// Somebody else holds a lock on something that the statement needs: a row, or a whole table.
    case lock
    /// The database, the session or its rights: no record can be written, and none is to blame.
    case outage
    /// The partition of a record's day is missing.
    case day
    /// Some record, or the database after all: found out by flushing less of it, and by an empty flush.
    case record
}

extension PostgresError {
    /// The one place that tells by code and SQLSTATE what an error is about (PostgreSQL manual, appendix A).
    var scope: ErrorScope {
        switch self.code {
        case .server: break
        case .invalidParameter: return .record
        default: return .outage
        }
        guard let sqlstate = self.sqlstate, let sqlstateClass = self.sqlstateClass else { return .outage }
        switch sqlstate {
        // statement_completion_unknown: nothing may be sent again before the rows have told.
        case "40003": return .outage
        case "55P03": return .lock
        // check_violation without a constraint: "no partition of relation found for row". (A leaf that is named and missing is
        // 42P01; then the parents are asked.)
        case "23514" where self.constraint == nil: return .day
        // insufficient_privilege. With row-level security it may be about a record, and an empty flush tells.
        case "42501": return .record
        // A prepared statement that is gone, there already, or whose tables have changed: the session is of no use.
        case "26000", "42P05", "0A000": return .outage
        default: break
        }
        switch sqlstateClass {
        // serialization_failure, deadlock_detected and their kind; snapshot_too_old.
        case "40", "72": return .conflict
        // Connection, transaction state (read-only, or failed before we came), rights of the session, database or schema gone,
        // resources, operator (a statement_timeout too), system, configuration.
        case "08", "25", "28", "3D", "3F", "53", "57", "58", "F0": return .outage
        default: return .record
        }
    }

    /// The transaction may have been committed all the same: the rows tell.
    var leavesDoubt: Bool {
        if self.isOutcomeUnknown || self.sqlstate == "40003" || self.sqlstate == "08007" { return true }
        switch self.code {
        // What can't be decoded was answered: after the COMMIT, perhaps.
        case .connectionLost, .decoding: return true
        default: return false
        }
    }
}
