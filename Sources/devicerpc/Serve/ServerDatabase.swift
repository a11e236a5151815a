import DeviceProvisioning
import Logging
import SagaRuntime

/// The server's database: the embedded PostgreSQL, or the one that `DATABASE_URL` names.
struct ServerDatabase: Sendable {
    /// How long a start waits for a database that can't be reached.
    static let patience = Duration.seconds(30)

    /// May hold a password: never log it.
    let conninfo: String
    let isTransactionPooled: Bool
    private let embedded: EmbeddedPostgres?

    static let migrator = Migrator(migrations: SagaMigrations.all + DeviceMigrations.all)

    static func open(_ configuration: ServerConfiguration, logger: Logger) async throws(PostgresError) -> ServerDatabase
    {
        if let url = configuration.database.url {
            return ServerDatabase(
                conninfo: url, isTransactionPooled: configuration.database.isTransactionPooled, embedded: nil)
        }
        logger.info("starting the embedded PostgreSQL", metadata: ["data_dir": "\(configuration.dataDirectory)"])
        let embedded = try await EmbeddedPostgres.start(dataDirectory: configuration.dataDirectory)
        return ServerDatabase(conninfo: embedded.conninfo, isTransactionPooled: false, embedded: embedded)
    }

    /// Brings the schema up to date; waits for a database that is not there yet.
    ///
    /// - Returns: the versions that were applied now.
    func migrate(logger: Logger) async throws -> [Int] {
        try await self.withConnection(logger: logger) { try await Self.migrator.run(on: $0) }
    }

    /// Checks that the schema is up to date, changing nothing.
    func checkSchema(logger: Logger) async throws {
        try await self.withConnection(logger: logger) { try await Self.migrator.check(on: $0) }
    }

    func close() async { await self.embedded?.stop() }

    private func withConnection<T>(
        logger: Logger, _ body: (PostgresConnection) async throws -> T
    ) async throws -> T {
        let connection = try await self.connect(logger: logger)
        do {
            let result = try await body(connection)
            await connection.close()
            return result
        } catch {
            await connection.close()
            throw error
        }
    }

    private func connect(logger: Logger) async throws -> PostgresConnection {
        let giveUpAt = ContinuousClock.now + Self.patience
        while true {
            do throws(PostgresError) {
                return try await PostgresConnection.connect(
                    PostgresConfiguration(
                        conninfo: self.conninfo, applicationName: "devicerpc-migrate",
                        isTransactionPooled: self.isTransactionPooled))
            } catch {
                // Anything but a server that isn't there (a wrong password, no such database) won't mend itself.
                let mayMend = error.sqlstate == nil || error.sqlstateClass == "57"
                guard mayMend, ContinuousClock.now < giveUpAt else { throw error }
                logger.log(.warning, cause: "database.start", "waiting for the database: \(error.message)")
            }
            try await Task.sleep(for: .seconds(1))
        }
    }
}
