import Glibc
import SagaRuntime
import TestSupport
import Testing

@Suite struct EmbeddedPostgresTests {
    @Test func livesThroughStopsCrashesAndTheLossOfItsKeeper() async throws {
        let directory = try TemporaryDirectory.makeGuarded()
        var server = try await EmbeddedPostgres.start(dataDirectory: directory)
        let first = try #require(server.postmasterPID)
        try await self.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)", server)

        // A second keeper is refused.
        let refused = await #expect(throws: PostgresError.self) {
            _ = try await EmbeddedPostgres.start(dataDirectory: directory)
        }
        #expect(refused?.code == .embedded)

        // The keeper is killed: the server is found again, and can be stopped.
        server.abandonForTesting()
        server = try await self.startAgain(directory)
        #expect(server.postmasterPID == first)
        #expect(try await self.number(server) == 7)
        await server.stop()
        #expect(server.postmasterPID == nil)
        await server.stop()

        // Started again, it has kept its data.
        server = try await self.startAgain(directory)
        let second = try #require(server.postmasterPID)
        #expect(second != first)
        #expect(try await self.number(server) == 7)

        // Killed together with its keeper: postmaster.pid is stale, and a new one starts.
        server.abandonForTesting()
        kill(second, SIGKILL)
        while server.postmasterPID != nil { try await Task.sleep(for: .milliseconds(10)) }
        server = try await self.startAgain(directory)
        #expect(server.postmasterPID != second)
        #expect(try await self.number(server) == 7)
        await server.stop()
    }

    /// A process that another test starts has a copy of the lock until it has become another program.
    private func startAgain(_ directory: String) async throws -> EmbeddedPostgres {
        for _ in 0..<500 {
            do {
                return try await EmbeddedPostgres.start(dataDirectory: directory)
            } catch {
                guard error.message.hasSuffix("is locked)") else { throw error }
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        return try await EmbeddedPostgres.start(dataDirectory: directory)
    }

    @Test func oddAndLongDirectoriesWork() async throws {
        // A quote, spaces, a comma; longer than a socket's path may be; below a directory that is closed to others.
        let parent = try TemporaryDirectory.makeGuarded()
        #expect(mkdir("\(parent)/closed", 0o700) == 0)
        for name in ["it's a, name", String(repeating: "long", count: 30)] {
            let server = try await EmbeddedPostgres.start(
                dataDirectory: "\(parent)/closed/\(name)/data", isDurable: false)
            try await self.execute("SELECT 1", server)
            await server.stop()
            #expect(server.postmasterPID == nil)
        }
    }

    @Test func directoryThatCannotBeMadeIsToldOf() async throws {
        for directory in ["/proc/nothing/here", "", "/dev/null/x", "/tmp/$(touch oops)", "/tmp/a\"b"] {
            let error = await #expect(throws: PostgresError.self) {
                _ = try await EmbeddedPostgres.start(dataDirectory: directory)
            }
            #expect(error?.code == .embedded)
        }
    }

    @Test func clusterOfAnotherVersionIsToldOf() async throws {
        let directory = try TemporaryDirectory.makeGuarded()
        mkdir("\(directory)/postgres", 0o700)
        let file = fopen("\(directory)/postgres/PG_VERSION", "w")
        fputs("9\n", file)
        fclose(file)
        let error = await #expect(throws: PostgresError.self) {
            _ = try await EmbeddedPostgres.start(dataDirectory: directory)
        }
        #expect(error?.message.contains("PostgreSQL 9") == true)
    }

    private func execute(_ sql: String, _ server: EmbeddedPostgres) async throws {
        let connection = try await PostgresConnection.connect(PostgresConfiguration(conninfo: server.conninfo))
        try await connection.execute(sql)
        await connection.close()
    }

    private func number(_ server: EmbeddedPostgres) async throws -> Int32 {
        let connection = try await PostgresConnection.connect(PostgresConfiguration(conninfo: server.conninfo))
        defer { withExtendedLifetime(connection) {} }
        return try await connection.run(SQLQuery(SQLStatement("t", "SELECT n FROM t"))).single().int32(0)
    }
}
