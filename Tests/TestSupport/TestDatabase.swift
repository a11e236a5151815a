public import SagaRuntime

/// A database of its own for one test, on a PostgreSQL server that all tests of this process share.
public struct TestDatabase: Sendable {
    public let name: String
    /// How to connect to it.
    public let conninfo: String

    /// Makes a fresh, empty database. It goes away with the server, at the end of the process.
    public static func make() async throws -> TestDatabase {
        let server = try await TestServer.shared.start()
        let name = "test_\(TestServer.nextNumber())"
        try await server.makeDatabase(name)
        return TestDatabase(name: name, conninfo: server.conninfo(database: name))
    }

    /// Makes a fresh database and runs `migrations` on it.
    public static func make(migrations: [Migration]) async throws -> TestDatabase {
        let database = try await Self.make()
        let connection = try await database.connect()
        try await Migrator(migrations: migrations).run(on: connection)
        await connection.close()
        return database
    }

    /// How to connect to it as somebody else.
    public func conninfo(user: String) -> String { "\(self.conninfo) user=\(user)" }

    public var configuration: PostgresConfiguration { PostgresConfiguration(conninfo: self.conninfo) }
    /// With the engine's planner settings.
    public var engineConfiguration: PostgresConfiguration { .engine(conninfo: self.conninfo) }

    /// A new connection, with the defaults of `PostgresConfiguration`.
    public func connect() async throws(PostgresError) -> PostgresConnection {
        try await PostgresConnection.connect(self.configuration)
    }
}
