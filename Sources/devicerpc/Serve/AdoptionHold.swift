import Logging
import SagaRuntime
import ServiceLifecycle

/// Keeps the engine from taking up sagas of a database that may have been restored, until an operator says that it may.
struct AdoptionHold: Service {
    private static let interval = Duration.seconds(2)
    private static let remedy =
        "`devicerpc adopt --after-restore` once that is what you want (docs/database.md, \"Restored\")"

    let runtime: SagaRuntime
    /// `nil`: nothing was held when the server started, which is when it is looked at.
    let database: RestoredDatabase?
    let registry: MetricsRegistry
    let logger: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown {
            let gauge = self.registry.gauge("saga_adoption_held")
            gauge.set(self.database == nil ? 0.0 : 1.0)
            guard let database = self.database else {
                try? await gracefulShutdown()
                return
            }
            while !Task.isCancelled {
                do throws(PostgresError) {
                    guard let reason = try await database.heldReason() else { break }
                    self.logger.log(
                        .critical, cause: "restored",
                        "[SAGA] no sagas are taken up and nothing is removed: \(reason); \(Self.remedy)")
                } catch {
                    self.logger.debug("[SAGA] can't see whether sagas may be taken up: \(error)")
                }
                try? await Task.sleep(for: Self.interval)
            }
            guard !Task.isCancelled else { return }
            self.runtime.holdAdoption(nil)
            gauge.set(0.0)
            self.logger.notice("[SAGA] sagas are taken up again")
            try? await gracefulShutdown()
        }
    }
}
