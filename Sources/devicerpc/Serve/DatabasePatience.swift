import Logging
import SagaRuntime

/// Waits at a start for a database that is away, full, starting up or read-only, and ends at once where waiting is no use:
/// what the connection string says is wrong, or the server doesn't know us.
struct DatabasePatience: Sendable {
    /// `nil`: until the process is told to stop.
    var limit: Duration?
    var logger: Logger

    private static let pause = Duration.milliseconds(500)

    func run<T>(_ body: () async throws -> T) async throws -> T {
        let start = ContinuousClock.now
        while true {
            do {
                return try await body()
            } catch let error as PostgresError where error.isMisconfiguration {
                let sqlstate = error.sqlstate.map { " (\($0))" } ?? ""
                throw ConfigurationError(
                    problems: ["\(Settings.databaseURL.description.environmentName): \(error.message)\(sqlstate)"])
            } catch let error as PostgresError where error.mayPass {
                try Task.checkCancellation()
                if let limit, .now - start > limit { throw error }
                self.logger.log(
                    .warning, cause: "start: \(error.description)", "waiting for the database: \(error)")
            }
            try await Task.sleep(for: Self.pause)
        }
    }
}
