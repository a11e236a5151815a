import DeviceProvisioning
import Logging
import SagaRuntime

/// The server's database: the embedded PostgreSQL, or the one that `DATABASE_URL` names.
struct ServerDatabase: Sendable {
    /// How long `devicerpc migrate` waits for a database that can't be reached or written to. `serve` waits for as long as
    /// it takes.
    static let commandPatience = Duration.seconds(60)

    /// How to connect; the search path is known once `migrate` or `checkSchema` has returned. Holds a password, perhaps:
    /// never log it.
    private(set) var connection: PostgresConfiguration
    private let embedded: EmbeddedPostgres?

    static let migrator = Migrator(migrations: SagaMigrations.all + DeviceMigrations.all)

    static func open(_ configuration: ServerConfiguration, logger: Logger) async throws(PostgresError) -> ServerDatabase
    {
        var conninfo = configuration.database.url
        var embedded: EmbeddedPostgres?
        if conninfo == nil {
            logger.info("starting the embedded PostgreSQL", metadata: ["data_dir": "\(configuration.dataDirectory)"])
            EmbeddedPostgres.forgetEnvironment()
            embedded = try await EmbeddedPostgres.start(dataDirectory: configuration.dataDirectory)
            conninfo = embedded?.conninfo
        }
        var connection = PostgresConfiguration.engine(
            conninfo: conninfo ?? "",
            isTransactionPooled: embedded == nil && configuration.database.isTransactionPooled)
        connection.connectTimeout = configuration.database.connectTimeout
        connection.acquireTimeout = configuration.database.acquireTimeout
        return ServerDatabase(connection: connection, embedded: embedded)
    }

    /// Brings the schema up to date.
    ///
    /// - Returns: the versions that were applied now.
    mutating func migrate(_ patience: DatabasePatience) async throws -> [Int] {
        try await self.prepare(patience) { try await Self.migrator.run(on: $0) }
    }

    /// Checks that the schema is up to date, changing nothing.
    mutating func checkSchema(_ patience: DatabasePatience) async throws {
        try await self.prepare(patience) { try await Self.migrator.check(on: $0) }
    }

    func close() async { await self.embedded?.stop() }

    /// Finds out in which schema the tables are, or belong, and lends a connection that has it.
    private mutating func prepare<T: Sendable>(
        _ patience: DatabasePatience, _ body: (PostgresConnection) async throws -> T
    ) async throws -> T {
        var connection = self.connection
        let result = try await patience.run {
            connection.applicationName = "devicerpc-migrate"
            connection.searchPath = nil
            connection.searchPath = try await Self.lending(connection) { try await DatabaseSchema.searchPath(on: $0) }
            return try await Self.lending(connection, body)
        }
        self.connection.searchPath = connection.searchPath
        return result
    }

    private static func lending<T>(
        _ configuration: PostgresConfiguration, _ body: (PostgresConnection) async throws -> T
    ) async throws -> T {
        let connection = try await PostgresConnection.connect(configuration)
        do {
            let result = try await body(connection)
            await connection.close()
            return result
        } catch {
            await connection.close()
            throw error
        }
    }
}
