import SagaRuntime
import ServiceLifecycle

/// Has days of sagas go that are over for long, once a day.
struct RetentionService: Service {
    /// `nil`: they are kept for good.
    let retention: Retention?
    let metrics: SagaMetrics

    func run() async throws {
        await cancelWhenGracefulShutdown {
            guard let retention = self.retention else {
                try? await gracefulShutdown()
                return
            }
            await retention.run { self.metrics.retention($0) }
        }
    }
}
