import SagaRuntime
import ServiceLifecycle

/// Asks the database again and again whether it takes records, so that health and readiness know within a second, also while
/// there is nothing to write. One error that passes (a conflict, a backend that is ended) is no outage: only what fails twice is
/// told.
struct DatabaseProbe: Service {
    static let interval = Duration.milliseconds(300)
    static let timeout = Duration.milliseconds(600)
    /// Between a failure and the second question.
    static let pause = Duration.milliseconds(50)

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
                self.onAnswer(await self.ask())
                try? await Task.sleep(for: Self.interval)
            }
        }
    }

    private func ask() async -> String? {
        let started = ContinuousClock.now
        guard let problem = await self.askOnce(Self.timeout) else { return nil }
        // There is a second to tell it in.
        let left = Self.timeout - (ContinuousClock.now - started)
        guard left >= Self.timeout / 4 else { return problem }
        try? await Task.sleep(for: Self.pause)
        return await self.askOnce(left)
    }

    private func askOnce(_ timeout: Duration) async -> String? {
        do throws(PostgresError) {
            _ = try await self.pool.run(JournalProbe.queries(lockTimeout: timeout / 2), timeout: timeout)
            return nil
        } catch {
            return "\(error.code)\(error.sqlstate.map { " \($0)" } ?? "")"
        }
    }
}
