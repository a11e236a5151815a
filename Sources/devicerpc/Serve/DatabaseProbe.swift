import SagaRuntime
import ServiceLifecycle

/// Asks the database again and again whether it takes records, so that health and readiness know within a second, also while
/// there is nothing to write.
struct DatabaseProbe: Service {
    static let interval = Duration.milliseconds(300)
    static let timeout = Duration.milliseconds(600)

    private let pool: PostgresPool
    private let onAnswer: @Sendable (_ problem: String?) -> Void

    /// - Parameter onAnswer: told after each question what is wrong; `nil`: the database would take records.
    init(pool: PostgresPool, onAnswer: @escaping @Sendable (_ problem: String?) -> Void) {
        self.pool = pool
        self.onAnswer = onAnswer
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                var problem: String?
                do throws(PostgresError) {
                    _ = try await self.pool.run(
                        JournalProbe.queries(lockTimeout: Self.timeout / 2), timeout: Self.timeout)
                } catch {
                    problem = "\(error.code)\(error.sqlstate.map { " \($0)" } ?? "")"
                }
                self.onAnswer(problem)
                try? await Task.sleep(for: Self.interval)
            }
        }
    }
}
