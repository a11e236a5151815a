import SagaRuntime
import ServiceLifecycle

/// Has days of sagas go that are over for long, once a day.
struct RetentionService: Service {
    /// `nil`: they are kept for good.
    let retention: Retention?
    let runtime: SagaRuntime
    let metrics: SagaMetrics

    func run() async throws {
        await cancelWhenGracefulShutdown {
            guard let retention = self.retention else {
                try? await gracefulShutdown()
                return
            }
            // What may be a copy stays as it is.
            while self.runtime.adoptionHold != nil, !Task.isCancelled { try? await Task.sleep(for: .seconds(5)) }
            await retention.run { self.metrics.retention($0) }
        }
    }
}
