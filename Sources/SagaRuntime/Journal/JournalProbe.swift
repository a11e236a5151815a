/// What every flush needs, and writes nothing: it fails in a database that is read-only, that has taken rights away, where a
/// table is missing or locked. For whoever watches the database while no flush is under way.
public enum JournalProbe {
    static let statement = SQLStatement(
        "journal_probe",
        """
        WITH request AS (
            INSERT INTO saga_request (user_id, request_id, method, saga_id, digest)
            SELECT '', '', 0, '', ''::bytea WHERE false
        ), born AS (
            INSERT INTO saga_state (saga_id) SELECT '' WHERE false
        ), moved AS (
            UPDATE saga_state SET version = version WHERE false
        ), event AS (
            INSERT INTO saga_event (saga_id, sequence, events) SELECT '', 0, ''::bytea WHERE false
        ), secret AS (
            INSERT INTO saga_secret (saga_id, secrets) SELECT '', ''::bytea WHERE false
        ), erased AS (
            DELETE FROM saga_secret WHERE false
        ), lease AS (
            UPDATE saga_instance SET lease_until = lease_until WHERE false
        )
        SELECT 1
        """)

    /// The same for one pipeline, which waits no longer than this for a table that somebody has locked.
    public static func queries(lockTimeout: Duration) -> [SQLQuery] {
        [Self.setLockTimeout(lockTimeout), SQLQuery(Self.statement)]
    }

    /// Gives the transaction an id. A standby has none to give, and a database that is about to run out of them refuses.
    static let transactionID = SQLStatement("journal_probe_xid", "SELECT pg_current_xact_id()")
    /// Ends a rehearsal: by this error everything before it has been done, and is undone.
    static let takesBack = SQLStatement("journal_take_back", "SELECT 1 / (random() * 0)::int")
    static let isTakenBack = "22012"
    /// For this transaction alone.
    static func setLockTimeout(_ timeout: Duration) -> SQLQuery {
        var parameters = SQLParameters()
        parameters.append("\(max(1, timeout.wholeMicroseconds / 1000))")
        return SQLQuery(Self.setsLockTimeout, parameters)
    }
    static let setsLockTimeout = SQLStatement(
        "journal_lock_timeout", "SELECT set_config('lock_timeout', $1, true)")
}
