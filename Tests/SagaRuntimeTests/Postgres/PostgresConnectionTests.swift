import Glibc
import SagaRuntime
import TestSupport
import Testing

@Suite struct PostgresConnectionTests {
    private static let insert = SQLStatement("insert", "INSERT INTO item (id, name) VALUES ($1, $2)")
    private static let count = SQLStatement("count", "SELECT count(*) FROM item")

    private func insert(_ id: Int64, _ name: String = "n") -> SQLQuery {
        var parameters = SQLParameters()
        parameters.append(id)
        parameters.append(name)
        return SQLQuery(Self.insert, parameters)
    }

    private func makeConnection() async throws -> (PostgresConnection, TestDatabase) {
        let database = try await TestDatabase.make()
        let connection = try await database.connect()
        try await connection.execute("CREATE TABLE item (id bigint PRIMARY KEY, name text NOT NULL)")
        return (connection, database)
    }

    private func count(_ connection: PostgresConnection) async throws -> Int64 {
        try await connection.run(SQLQuery(Self.count)).single().int64(0)
    }

    /// A day's statements are many over the days: the least recently used make room, also when a pipeline is aborted.
    @Test func preparedStatementsAreBounded() async throws {
        let (connection, _) = try await self.makeConnection()
        func number(_ value: Int) -> SQLQuery {
            SQLQuery(SQLStatement("number \"\(value)\"", "SELECT \(value)::bigint"))
        }
        let broken = SQLQuery(SQLStatement("broken", "SELECT 1 / (SELECT count(*) FROM item)"))
        for round in 0..<40 {
            let numbers = (0..<10).map { (round * 7 + $0) % 270 }
            // The first of all is used all the time, and stays.
            let results = try await connection.transaction([number(0)] + numbers.map(number))
            #expect(try results.dropFirst().map { Int(try $0.single().int64(0)) } == numbers)
            let others = (0..<10).map { number(1000 + round * 10 + $0) }
            await #expect(throws: PostgresError.self) { try await connection.transaction([broken] + others) }
        }
        let kept = try await connection.run(
            SQLQuery(
                SQLStatement(
                    "kept", "SELECT count(*), count(*) FILTER (WHERE name = 'number \"0\"') FROM pg_prepared_statements"
                ))
        ).single()
        #expect(try kept.int64(0) <= 140)
        #expect(try kept.int64(0) > 100)
        #expect(try kept.int64(1) == 1)
        // More in one pipeline than are kept.
        let many = (2000..<2300).map { $0 }
        #expect(try await connection.run(many.map(number)).map { Int(try $0.single().int64(0)) } == many)
        #expect(connection.isOpen)
        await connection.close()
    }

    @Test func runReturnsOneResultPerQueryInOrder() async throws {
        let (connection, _) = try await self.makeConnection()
        let rows = try await connection.run([self.insert(1), self.insert(2), SQLQuery(Self.count)])
        #expect(rows.count == 3)
        #expect(rows[0].affectedRows == 1)
        #expect(rows[0].isEmpty)
        #expect(try rows[2].single().int64(0) == 2)
        #expect(connection.backendPID > 0)
        #expect(connection.backendStart.microseconds > 1_600_000_000_000_000)
        #expect(connection.serverVersion >= 140_000)
        await connection.close()
    }

    @Test func transactionReturnsTheResultsOfItsQueriesOnly() async throws {
        let (connection, _) = try await self.makeConnection()
        for tracks in [false, true] {
            let rows = try await connection.transaction(
                [self.insert(tracks ? 1 : 2), SQLQuery(Self.count)], tracksOutcome: tracks)
            #expect(rows.count == 2)
        }
        #expect(try await self.count(connection) == 2)
    }

    @Test(arguments: [false, true]) func firstErrorRollsEverythingBackAndTheConnectionGoesOn(explicit: Bool)
        async throws
    {
        let (connection, _) = try await self.makeConnection()
        _ = try await connection.run(self.insert(1))
        let queries = [self.insert(2), self.insert(1), self.insert(3), self.insert(1)]
        let error = await #expect(throws: PostgresError.self) {
            _ = explicit ? try await connection.transaction(queries) : try await connection.run(queries)
        }
        #expect(error?.code == .server)
        #expect(error?.sqlstate == "23505")
        #expect(error?.sqlstateClass == "23")
        #expect(error?.constraint == "item_pkey")
        #expect(error?.queryIndex == 1)
        #expect(error?.isOutcomeUnknown == false)
        #expect(error?.isSerialization == false)
        #expect(error?.isConnectionClass == false)
        #expect(try await self.count(connection) == 1)
        _ = try await connection.transaction([self.insert(2)])
        #expect(try await self.count(connection) == 2)
    }

    @Test(arguments: [false, true]) func deferredConstraintFailsTheCommit(explicit: Bool) async throws {
        let (connection, _) = try await self.makeConnection()
        try await connection.execute(
            "CREATE TABLE part (item bigint REFERENCES item DEFERRABLE INITIALLY DEFERRED)")
        let query = SQLQuery(SQLStatement("part", "INSERT INTO part VALUES (7)"))
        let error = await #expect(throws: PostgresError.self) {
            _ = explicit ? try await connection.transaction([query]) : try await connection.run([query])
        }
        #expect(error?.sqlstate == "23503")
        #expect(error?.isOutcomeUnknown == false)
        #expect(try await self.count(connection) == 0)
    }

    @Test func statementThatCouldNotBePreparedIsPreparedLater() async throws {
        let (connection, _) = try await self.makeConnection()
        let query = SQLQuery(SQLStatement("later", "SELECT id FROM later"))
        for _ in 0..<2 {
            let error = await #expect(throws: PostgresError.self) {
                _ = try await connection.transaction([self.insert(1), query, SQLQuery(Self.count)])
            }
            #expect(error?.sqlstate == "42P01")
        }
        try await connection.execute("CREATE TABLE later (id int)")
        #expect(try await connection.transaction([self.insert(1), query, SQLQuery(Self.count)]).count == 3)
    }

    @Test func changedTableIsPreparedAgain() async throws {
        let (connection, _) = try await self.makeConnection()
        let all = SQLQuery(SQLStatement("all", "SELECT * FROM item"))
        _ = try await connection.run(all)
        try await connection.execute("ALTER TABLE item ADD COLUMN extra int")
        #expect(try await connection.transaction([self.insert(1), all])[1].columnCount == 3)
        try await connection.execute("DEALLOCATE ALL")
        #expect(try await connection.run(all).columnCount == 3)
    }

    @Test func misusedStatementNamesAreRefusedUnsent() async throws {
        let (connection, _) = try await self.makeConnection()
        _ = try await connection.run(self.insert(1))
        var wrong = SQLParameters()
        wrong.append(Int32(1))
        wrong.append("n")
        let types = SQLQuery(Self.insert, wrong)
        let text = SQLQuery(SQLStatement("insert", "SELECT 1"))
        for query in [types, text] {
            let error = await #expect(throws: PostgresError.self) { _ = try await connection.run(query) }
            #expect(error?.code == .invalidParameter)
        }
        var uuid = SQLParameters()
        uuid.append(uuid: "no-uuid")
        let error = await #expect(throws: PostgresError.self) {
            _ = try await connection.run(SQLQuery(SQLStatement("uuid", "SELECT $1"), uuid))
        }
        #expect(error?.code == .invalidParameter)
        #expect(error?.sqlstate == "22P02")
        #expect(try await self.count(connection) == 1)
    }

    @Test func textWithNULIsTheServersError() async throws {
        let (connection, _) = try await self.makeConnection()
        let error = await #expect(throws: PostgresError.self) { _ = try await connection.run(self.insert(1, "a\0b")) }
        #expect(error?.sqlstateClass == "22")
        #expect(try await self.count(connection) == 0)
    }

    @Test func executeRunsSeveralStatementsAndSurvivesAFailureInABlock() async throws {
        let (connection, _) = try await self.makeConnection()
        try await connection.execute("INSERT INTO item VALUES (1, 'a'); INSERT INTO item VALUES (2, 'b')")
        let error = await #expect(throws: PostgresError.self) {
            try await connection.execute("BEGIN; INSERT INTO item VALUES (3, 'c'); SELECT 1/0; COMMIT")
        }
        #expect(error?.sqlstate == "22012")
        #expect(try await self.count(connection) == 2)
        let copy = await #expect(throws: PostgresError.self) { try await connection.execute("COPY item TO STDOUT") }
        #expect(copy?.code == .connectionLost)
        #expect(!connection.isOpen)
    }

    @Test func largePipelineNeitherBlocksNorMixesItsAnswers() async throws {
        let (connection, _) = try await self.makeConnection()
        let text = String(repeating: "x", count: 20_000)
        let echo = SQLStatement("echo", "SELECT $1, $2")
        let queries = (0..<500).map { index in
            var parameters = SQLParameters()
            parameters.append(Int64(index))
            parameters.append(text)
            return SQLQuery(echo, parameters)
        }
        // 10 MB each way: more than the sockets' buffers hold.
        let results = try await connection.transaction(queries)
        #expect(results.count == 500)
        for (index, rows) in results.enumerated() {
            #expect(try rows.single().int64(0) == Int64(index))
            #expect(try rows.single().text(1).utf8.count == 20_000)
        }
    }

    @Test func requestsAreServedInOrder() async throws {
        let (connection, _) = try await self.makeConnection()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for id in 0..<100 {
                group.addTask { _ = try await connection.transaction([self.insert(Int64(id))]) }
            }
            try await group.waitForAll()
        }
        #expect(try await self.count(connection) == 100)
    }

    // MARK: Loss

    @Test func wrongConninfoIsToldWithoutItsSecret() async throws {
        for conninfo in ["password=hunter2 nonsense=1 host=", "postgresql://u:hunter2@[::1/x", "hunter2"] {
            let error = await #expect(throws: PostgresError.self) {
                _ = try await PostgresConnection.connect(PostgresConfiguration(conninfo: conninfo))
            }
            #expect(error?.code == .connectFailed)
            #expect(error?.description.contains("hunter2") == false)
        }
        let error = await #expect(throws: PostgresError.self) {
            _ = try await PostgresConnection.connect(PostgresConfiguration(conninfo: "host=/nonexistent dbname=x"))
        }
        #expect(error?.code == .connectFailed)
        #expect(error?.isConnectionClass == true)
        #expect(error?.isOutcomeUnknown == false)
    }

    @Test func terminatedBackendInMidTransactionLeavesTheOutcomeUnknown() async throws {
        let (connection, database) = try await self.makeConnection()
        let other = try await database.connect()
        let sleep = SQLQuery(SQLStatement("sleep", "SELECT pg_sleep(30)"))
        async let result = Result.catching { () async throws(PostgresError) in
            try await connection.transaction([self.insert(1), sleep], tracksOutcome: true)
        }
        var parameters = SQLParameters()
        parameters.append(connection.backendPID)
        let terminate = SQLQuery(
            SQLStatement(
                "terminate",
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep%'"
            ),
            parameters)
        while try await other.run(terminate).isEmpty {}
        guard case .failure(let error) = await result else {
            Issue.record("the transaction succeeded")
            return
        }
        #expect(error.code == .connectionLost)
        #expect(error.sqlstate == "57P01")
        #expect(error.isOutcomeUnknown)
        #expect(error.isConnectionClass)
        let id = try #require(error.transactionID)
        #expect(try await self.status(of: id, other) == "aborted")
        #expect(!connection.isOpen)
        let next = await #expect(throws: PostgresError.self) { _ = try await self.count(connection) }
        #expect(next?.code == .connectionLost)
        #expect(next?.isOutcomeUnknown == false)
        await connection.close()
    }

    @Test func lostReplyOfACommitIsAnUnknownOutcomeThatHappened() async throws {
        let (connection, database) = try await self.makeConnection()
        connection.loseNextReplyForTesting()
        let error = await #expect(throws: PostgresError.self) {
            _ = try await connection.transaction([self.insert(1)], tracksOutcome: true)
        }
        #expect(error?.code == .connectionLost)
        #expect(error?.isOutcomeUnknown == true)
        let other = try await database.connect()
        #expect(try await self.count(other) == 1)
        let id = try #require(error?.transactionID)
        #expect(try await self.status(of: id, other) == "committed")
    }

    private func status(of transactionID: Int64, _ connection: PostgresConnection) async throws -> String {
        var parameters = SQLParameters()
        parameters.append(String(transactionID))
        let query = SQLQuery(SQLStatement("status", "SELECT pg_xact_status($1::xid8)"), parameters)
        return try await connection.run(query).single().text(0)
    }

    @Test func severedConnectionEndsARunningRequest() async throws {
        let (connection, database) = try await self.makeConnection()
        let sleep = SQLQuery(SQLStatement("sleep", "SELECT pg_sleep(30)"))
        async let result = Result.catching { () async throws(PostgresError) in try await connection.transaction([sleep])
        }
        let other = try await database.connect()
        let running = SQLQuery(
            SQLStatement(
                "running",
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%pg_sleep%'"
            ))
        while try await other.run(running).isEmpty {}
        connection.severForTesting()
        guard case .failure(let error) = await result else {
            Issue.record("the transaction succeeded")
            return
        }
        #expect(error.code == .connectionLost)
        #expect(error.isOutcomeUnknown)
    }

    @Test func hungServerCountsAsLostAfterTheTimeout() async throws {
        let (connection, _) = try await self.makeConnection()
        kill(connection.backendPID, SIGSTOP)
        defer { kill(connection.backendPID, SIGCONT) }
        let start = BootTime.now
        let error = await #expect(throws: PostgresError.self) {
            _ = try await connection.transaction([self.insert(1)], timeout: .milliseconds(300))
        }
        let elapsed = BootTime.now - start
        #expect(error?.code == .connectionLost)
        #expect(error?.isOutcomeUnknown == true)
        #expect(elapsed >= .milliseconds(300))
        #expect(elapsed < .seconds(2))
        #expect(!connection.isOpen)
    }

    @Test func idleConnectionNoticesItsLoss() async throws {
        let (connection, database) = try await self.makeConnection()
        let other = try await database.connect()
        try await other.execute("SELECT pg_terminate_backend(\(connection.backendPID), 5000)")
        while connection.isOpen { try await Task.sleep(for: .milliseconds(5)) }
    }

    @Test func timeoutsReachTheServer() async throws {
        let database = try await TestDatabase.make()
        var configuration = database.engineConfiguration
        configuration.statementTimeout = .milliseconds(50)
        let connection = try await PostgresConnection.connect(configuration)
        let error = await #expect(throws: PostgresError.self) { try await connection.execute("SELECT pg_sleep(30)") }
        #expect(error?.code == .server)
        #expect(error?.sqlstate == "57014")
        #expect(error?.isConnectionClass == true)
        let settings = try await connection.run(
            SQLQuery(
                SQLStatement(
                    "settings",
                    "SELECT current_setting('plan_cache_mode'), current_setting('enable_seqscan'), current_setting('lock_timeout')"
                )))
        #expect(try settings.single().text(0) == "force_generic_plan")
        #expect(try settings.single().text(1) == "off")
        #expect(try settings.single().text(2) == "5s")
    }

    /// Whatever the database has by default, a session has what it needs; the pooler's transactions too.
    @Test(arguments: [false, true]) func settingsOfOthersDoNotCount(_ isPooled: Bool) async throws {
        let database = try await TestDatabase.make()
        let first = try await database.connect()
        let hostile = [
            "default_transaction_isolation": "serializable", "statement_timeout": "1h", "lock_timeout": "1h",
            "idle_in_transaction_session_timeout": "1h", "idle_session_timeout": "1h", "search_path": "nowhere",
            "DateStyle": "German", "TimeZone": "Pacific/Kiritimati", "bytea_output": "escape",
            "standard_conforming_strings": "off", "synchronous_commit": "off", "enable_indexscan": "off",
            "exit_on_error": "on",
            "enable_partition_pruning": "off", "plan_cache_mode": "force_custom_plan", "transform_null_equals": "on",
        ]
        for (name, value) in hostile {
            try await first.execute("ALTER DATABASE \"\(database.name)\" SET \(name) = '\(value)'")
        }
        var configuration = database.engineConfiguration
        configuration.isTransactionPooled = isPooled
        configuration.searchPath = "\"public\", pg_temp"
        let connection = try await PostgresConnection.connect(configuration)
        let wanted = [
            "transaction_isolation": "read committed", "statement_timeout": "10s", "lock_timeout": "5s",
            "idle_in_transaction_session_timeout": "10s", "idle_session_timeout": "0",
            "search_path": "\"public\", pg_temp", "DateStyle": "ISO, MDY", "TimeZone": "UTC", "bytea_output": "hex",
            "standard_conforming_strings": "on", "synchronous_commit": "on", "enable_indexscan": "on",
            "exit_on_error": "off",
            "enable_partition_pruning": "on", "plan_cache_mode": "force_generic_plan", "transform_null_equals": "off",
        ]
        for (name, value) in wanted {
            let query = SQLQuery(SQLStatement("show_\(name)", "SELECT current_setting('\(name)')"))
            #expect(try await connection.run(query).single().text(0) == value, "\(name)")
            #expect(try await connection.transaction([query])[0].single().text(0) == value, "\(name)")
        }
    }

    /// Only what would lose an acknowledged saga is changed: who chose `local` or a kind of `remote` has a reason.
    @Test(arguments: [("off", "on"), ("on", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
    func synchronousCommitIsNeverOff(_ given: String, _ wanted: String) async throws {
        let database = try await TestDatabase.make()
        let first = try await database.connect()
        try await first.execute("ALTER DATABASE \"\(database.name)\" SET synchronous_commit = \(given)")
        let query = SQLQuery(SQLStatement("show", "SELECT current_setting('synchronous_commit')"))
        for isPooled in [false, true] {
            var configuration = database.configuration
            configuration.isTransactionPooled = isPooled
            #expect(try await PostgresConnection.connect(configuration).run(query).single().text(0) == wanted)
        }
    }

    @Test func serializationFailuresAreTold() async throws {
        let (connection, database) = try await self.makeConnection()
        _ = try await connection.run(self.insert(1))
        try await connection.execute("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE")
        var configuration = database.configuration
        configuration.lockTimeout = .milliseconds(50)
        let other = try await PostgresConnection.connect(configuration)
        let error = await #expect(throws: PostgresError.self) {
            _ = try await other.transaction([SQLQuery(Self.count)])
        }
        #expect(error?.sqlstate == "55P03")
        #expect(error?.isSerialization == true)
        try await connection.execute("COMMIT")
        #expect(try await self.count(other) == 1)
    }

    @Test func closedConnectionRefuses() async throws {
        let (connection, _) = try await self.makeConnection()
        await connection.close()
        await connection.close()
        let error = await #expect(throws: PostgresError.self) { _ = try await self.count(connection) }
        #expect(error?.code == .closed)
        #expect(!connection.isOpen)
    }

    // MARK: Transaction poolers

    /// The next transaction may be another session's: nothing is left in this one, and each has what it needs.
    @Test func transactionPoolersAreLeftNothing() async throws {
        let database = try await TestDatabase.make()
        var configuration = database.configuration
        configuration.isTransactionPooled = true
        configuration.statementTimeout = .milliseconds(7300)
        let connection = try await PostgresConnection.connect(configuration)
        #expect(connection.backendPID == 0)
        let look = SQLQuery(
            SQLStatement(
                "look",
                """
                SELECT current_setting('statement_timeout'),
                    (SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql)
                """))
        for _ in 0..<2 {
            for row in [try await connection.run(look), try await connection.transaction([look])[0]] {
                #expect(try row.single().text(0) == "7300ms")
                #expect(try row.single().int64(1) == 0)
            }
        }
        // As a session of its own it shows what is left: the simple protocol gets no settings.
        let error = await #expect(throws: PostgresError.self) {
            try await connection.execute(
                "DO $$ BEGIN RAISE EXCEPTION '%', current_setting('statement_timeout'); END $$")
        }
        #expect(error?.message == "0")
        _ = await #expect(throws: PostgresError.self) {
            _ = try await connection.transaction([look, SQLQuery(SQLStatement("broken", "SELECT 1 / 0"))])
        }
        #expect(try await connection.run(look).single().text(0) == "7300ms")
    }

    // MARK: LISTEN

    @Test func notificationsArrive() async throws {
        let (connection, database) = try await self.makeConnection()
        let stream = try await connection.notifications(channel: "Odd \"name\"")
        let other = try await database.connect()
        try await other.execute("SELECT pg_notify('Odd \"name\"', 'one'), pg_notify('other', 'x')")
        try await connection.execute("SELECT pg_notify('Odd \"name\"', 'two')")
        var iterator = stream.makeAsyncIterator()
        #expect(try await iterator.next() == "one")
        #expect(try await iterator.next() == "two")
    }

    @Test func lostConnectionEndsTheStreamWithAnError() async throws {
        let (connection, _) = try await self.makeConnection()
        let stream = try await connection.notifications(channel: "c")
        connection.severForTesting()
        let error = await #expect(throws: PostgresError.self) { for try await _ in stream {} }
        #expect(error?.code == .connectionLost)
    }

    @Test func streamThatNobodyReadsEndsWithAnErrorInsteadOfGrowing() async throws {
        let (connection, _) = try await self.makeConnection()
        let stream = try await connection.notifications(channel: "c")
        try await connection.execute("SELECT pg_notify('c', n::text) FROM generate_series(1, 5000) AS n")
        // Its answer comes after the notifications, and before the next request's: all have been handed out by then.
        _ = try await self.count(connection)
        _ = try await self.count(connection)
        var count = 0
        let error = await #expect(throws: PostgresError.self) { for try await _ in stream { count += 1 } }
        #expect(error?.code == .overloaded)
        #expect(count == 4096)
    }
}

extension Result where Failure == PostgresError {
    /// What `body` returned or threw.
    static func catching(_ body: () async throws(PostgresError) -> Success) async -> Self {
        do throws(PostgresError) {
            return .success(try await body())
        } catch {
            return .failure(error)
        }
    }
}
