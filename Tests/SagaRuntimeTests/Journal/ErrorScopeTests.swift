import Testing

@testable import SagaRuntime

/// Every kind of error that a flush can meet, and what it is about.
@Suite struct ErrorScopeTests {
    @Test(
        arguments: [
            // Two transactions met.
            ("40001", .conflict), ("40P01", .conflict), ("40000", .conflict), ("40002", .conflict),
            ("72000", .conflict),
            ("55P03", .lock),
            // A day's leaf.
            ("23514", .day),
            // Connections, transactions that are read-only or failed before, rights of sessions.
            ("08000", .outage), ("08006", .outage), ("08P01", .outage), ("25006", .outage), ("25P02", .outage),
            ("25P03", .outage), ("28000", .outage), ("28P01", .outage), ("3D000", .outage), ("3F000", .outage),
            // Disk, memory, connections; operators; the system.
            ("53100", .outage), ("53200", .outage), ("53300", .outage), ("57014", .outage), ("57P01", .outage),
            ("57P02", .outage), ("57P03", .outage), ("57P04", .outage), ("57P05", .outage), ("58030", .outage),
            ("58P01", .outage), ("F0001", .outage),
            // The session's prepared statements.
            ("26000", .outage), ("42P05", .outage), ("0A000", .outage), ("40003", .outage),
            // May be about one record; an empty flush tells.
            ("42501", .record), ("22021", .record), ("22P05", .record), ("22P02", .record), ("23505", .record),
            ("23502", .record), ("42P01", .record), ("42703", .record), ("42883", .record), ("54000", .record),
            ("54001", .record),
            ("55000", .record), ("55006", .record), ("55P04", .record), ("XX000", .record), ("XX001", .record),
            ("XX002", .record), ("P0001", .record), ("21000", .record), ("38000", .record), ("ZZZZZ", .record),
            ("", .record),
        ] as [(String, ErrorScope)])
    func byState(_ sqlstate: String, _ scope: ErrorScope) {
        #expect(PostgresError(.server, "", sqlstate: sqlstate).scope == scope)
    }

    /// A check of a column is about the row; the one without a name is the missing partition.
    @Test func aNamedCheckIsAboutARecord() {
        #expect(PostgresError(.server, "", sqlstate: "23514", constraint: "named").scope == .record)
    }

    @Test(arguments: [
        (PostgresError.Code.connectFailed, ErrorScope.outage), (.connectionLost, .outage), (.timedOut, .outage),
        (.closed, .outage), (.overloaded, .outage), (.embedded, .outage), (.decoding, .outage), (.server, .outage),
        (.invalidParameter, .record),
    ])
    func withoutState(_ code: PostgresError.Code, _ scope: ErrorScope) {
        #expect(PostgresError(code, "").scope == scope)
    }

    /// A connection that is lost with a SQLSTATE (57P01, say) is lost all the same.
    @Test(arguments: ["57P01", "22021", "23505", "XX000"])
    func aLostConnectionIsAnOutageWhateverItsLastWord(_ sqlstate: String) {
        #expect(PostgresError(.connectionLost, "", sqlstate: sqlstate).scope == .outage)
        #expect(PostgresError(.connectFailed, "", sqlstate: sqlstate).scope == .outage)
    }

    @Test func whatLeavesDoubt() {
        #expect(PostgresError(.connectionLost, "").leavesDoubt)
        #expect(PostgresError(.decoding, "").leavesDoubt)
        #expect(PostgresError(.server, "", sqlstate: "40003").leavesDoubt)
        #expect(PostgresError(.server, "", sqlstate: "23505", isOutcomeUnknown: true).leavesDoubt)
        for sqlstate in ["25006", "42501", "53100", "40001", "55P03"] {
            #expect(!PostgresError(.server, "", sqlstate: sqlstate).leavesDoubt)
        }
        #expect(!PostgresError(.connectFailed, "").leavesDoubt)
    }
}
