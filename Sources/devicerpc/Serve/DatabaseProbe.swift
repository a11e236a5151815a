import SagaRuntime
import ServiceLifecycle

/// Asks the database again and again whether it is there, so that health and readiness know within a second.
struct DatabaseProbe: Service {
    static let interval = Duration.milliseconds(300)
    static let timeout = Duration.milliseconds(600)

    private static let ping = SQLStatement("probe_ping", "SELECT 1")

    private let pool: PostgresPool
    private let onAnswer: @Sendable (_ problem: String?) -> Void

    /// - Parameter onAnswer: told after each question what is wrong; `nil`: the database answered.
    init(pool: PostgresPool, onAnswer: @escaping @Sendable (_ problem: String?) -> Void) {
        self.pool = pool
        self.onAnswer = onAnswer
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                var problem: String?
                do throws(PostgresError) {
                    _ = try await self.pool.run(SQLQuery(Self.ping), timeout: Self.timeout)
                } catch {
                    problem = "\(error.code)"
                }
                self.onAnswer(problem)
                try? await Task.sleep(for: Self.interval)
            }
        }
    }
}
