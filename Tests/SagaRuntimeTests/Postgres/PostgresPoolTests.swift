import SagaRuntime
import Synchronization
import TestSupport
import Testing

@Suite struct PostgresPoolTests {
    private static let one = SQLQuery(SQLStatement("one", "SELECT 1"))
    private static let sleep = SQLQuery(SQLStatement("sleep", "SELECT pg_sleep(0.3)"))

    @Test func manyTasksShareFewConnections() async throws {
        let database = try await TestDatabase.make()
        let pool = PostgresPool(database.configuration, size: 3, maximumWaiters: 1000, acquireTimeout: .seconds(20))
        let pid = SQLQuery(SQLStatement("pid", "SELECT pg_backend_pid()"))
        let pids = try await withThrowingTaskGroup(of: Int32.self) { group in
            for _ in 0..<200 { group.addTask { try await pool.run(pid).single().int32(0) } }
            var pids: Set<Int32> = []
            for try await pid in group { pids.insert(pid) }
            return pids
        }
        #expect(pids.count <= 3)
        await pool.shutdown()
        await pool.shutdown()
        let error = await #expect(throws: PostgresError.self) { _ = try await pool.run(Self.one) }
        #expect(error?.code == .closed)
    }

    @Test func waitersAreServedInOrder() async throws {
        let pool = PostgresPool(
            try await TestDatabase.make().configuration, size: 1, maximumWaiters: 10, acquireTimeout: .seconds(20))
        let order = Recorder()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { _ = try await pool.run(Self.sleep) }
            try await Task.sleep(for: .milliseconds(100))
            for number in 0..<4 {
                group.addTask {
                    try await pool.withConnection { connection async throws(PostgresError) in
                        order.numbers.withLock { $0.append(number) }
                        _ = try await connection.run(Self.one)
                    }
                }
                try await Task.sleep(for: .milliseconds(20))
            }
            try await group.waitForAll()
        }
        #expect(order.numbers.withLock { $0 } == [0, 1, 2, 3])
    }

    @Test func tooManyWaitersAndTooLongWaitsAreRefused() async throws {
        let pool = PostgresPool(
            try await TestDatabase.make().configuration, size: 1, maximumWaiters: 1, acquireTimeout: .seconds(1))
        _ = try await pool.run(Self.one)
        try await pool.withConnection { connection async throws(PostgresError) in
            let start = BootTime.now
            async let waiter = Result.catching { () async throws(PostgresError) in try await pool.run(Self.one) }
            while BootTime.now - start < .milliseconds(100) { await Task.yield() }
            let refused = await Result.catching { () async throws(PostgresError) in try await pool.run(Self.one) }
            if case .failure(let error) = refused {
                #expect(error.code == .overloaded)
            } else {
                Issue.record("not refused")
            }
            if case .failure(let error) = await waiter {
                #expect(error.code == .timedOut)
                #expect(error.isConnectionClass)
            } else {
                Issue.record("did not time out")
            }
            #expect(BootTime.now - start < .seconds(3))
        }
        _ = try await pool.run(Self.one)
    }

    @Test func cancelledWaiterLeavesTheLine() async throws {
        let pool = PostgresPool(
            try await TestDatabase.make().configuration, size: 1, maximumWaiters: 1, acquireTimeout: .seconds(20))
        try await pool.withConnection { _ async throws(PostgresError) in
            let task = Task { try await pool.run(Self.one) }
            try? await Task.sleep(for: .milliseconds(50))
            task.cancel()
            let result = await task.result
            #expect(throws: PostgresError.self) { try result.get() }
        }
        _ = try await pool.run(Self.one)
    }

    @Test func lostConnectionIsReplaced() async throws {
        let pool = PostgresPool(try await TestDatabase.make().configuration, size: 1, maximumWaiters: 1)
        let error = await #expect(throws: PostgresError.self) {
            try await pool.withConnection { connection async throws(PostgresError) in
                connection.severForTesting()
                _ = try await connection.run(Self.one)
            }
        }
        #expect(error?.isConnectionClass == true)
        _ = try await pool.run(Self.one)
    }

    /// A call's deadline is the statement's, for that statement alone.
    @Test func statementsEndWithTheirCall() async throws {
        let pool = PostgresPool(try await TestDatabase.make().configuration, size: 1, maximumWaiters: 1)
        let long = SQLQuery(SQLStatement("long", "SELECT pg_sleep(5)"))
        let start = BootTime.now
        let error = await #expect(throws: PostgresError.self) {
            _ = try await pool.run(long, until: .now + .milliseconds(200))
        }
        #expect(error?.sqlstate == "57014")
        #expect(BootTime.now - start < .seconds(2))
        let limit = SQLQuery(SQLStatement("limit", "SELECT current_setting('statement_timeout')"))
        #expect(try await pool.run(limit).single().text(0) == "10s")
        #expect(try await pool.run(limit, until: .now + .seconds(20)).single().text(0) == "10s")
        #expect(try await pool.run(limit, until: .now + .seconds(5)).single().text(0) != "10s")
        #expect(try await pool.run(limit, until: nil).single().text(0) == "10s")
        await pool.shutdown()
    }

    @Test func poolOutlivesARestartOfTheDatabaseAndFailsFastMeanwhile() async throws {
        let directory = try TemporaryDirectory.makeGuarded()
        var server = try await EmbeddedPostgres.start(dataDirectory: directory, isDurable: false)
        let pool = PostgresPool(PostgresConfiguration(conninfo: server.conninfo), size: 4, maximumWaiters: 100)
        _ = try await pool.run(Self.one)
        await server.stop()
        for _ in 0..<50 {
            let start = BootTime.now
            let error = await #expect(throws: PostgresError.self) { _ = try await pool.run(Self.one) }
            #expect(error?.isConnectionClass == true)
            #expect(BootTime.now - start < .seconds(1))
        }
        server = try await EmbeddedPostgres.start(dataDirectory: directory, isDurable: false)
        let start = BootTime.now
        while (try? await pool.run(Self.one)) == nil { try await Task.sleep(for: .milliseconds(10)) }
        #expect(BootTime.now - start < .seconds(3))
        await pool.shutdown()
        await server.stop()
    }
}

private final class Recorder: Sendable {
    let numbers = Mutex<[Int]>([])
}
