import Logging
import SagaRuntime

/// What a command does with the server's database and nothing else; the embedded PostgreSQL runs as long as that.
struct DatabaseWork: Sendable {
    var database: ServerDatabase
    let configuration: ServerConfiguration
    /// Waits for a database that is away, for a minute.
    let patience: DatabasePatience
    let logger: Logger

    /// Does something over a connection of its own, with a schema that is up to date.
    mutating func withPool<T: Sendable>(_ body: (PostgresPool) async throws -> T) async throws -> T {
        try await self.database.checkSchema(self.patience)
        let pool = PostgresPool(self.database.connection, size: 1, maximumWaiters: 1)
        let result: Result<T, any Error>
        do {
            result = .success(try await body(pool))
        } catch {
            result = .failure(error)
        }
        await pool.shutdown()
        return try result.get()
    }

    /// Stops what it has started also when it is interrupted.
    ///
    /// - Throws: what `body` throws, as it is to be shown; `Exit`, once its words are written.
    static func run<T: Sendable>(
        _ settings: SettingsOptions, as output: OutputFormat,
        _ body: @escaping @Sendable (inout DatabaseWork) async throws -> T
    ) async throws -> T {
        try await ServerErrors.reported(as: output) {
            let configuration = try await settings.load(for: .migrating)
            let logger = Logger(label: "devicerpc") { label in
                LineLogHandler(label: label, format: configuration.log.format, level: configuration.log.level) {
                    line, _ in StandardError.write(line)
                }
            }
            let signals = ShutdownSignals { words, level in logger.log(level: level, "\(words)") }
            let patience = DatabasePatience(
                limit: ServerDatabase.commandPatience, logger: LogCauses().thinning(logger))
            do {
                return try await signals.interrupting {
                    var work = DatabaseWork(
                        database: try await ServerDatabase.open(configuration, logger: logger),
                        configuration: configuration, patience: patience, logger: logger)
                    let result: Result<T, any Error>
                    do {
                        result = .success(try await body(&work))
                    } catch {
                        result = .failure(error)
                    }
                    await work.database.close()
                    return try result.get()
                }
            } catch let failure as Migrator.Failure {
                StandardError.write(ServerErrors.words("\(failure)", .failed, as: output))
                throw Exit(.failed)
            } catch is CancellationError {
                throw Exit(.interrupted)
            }
        }
    }
}
