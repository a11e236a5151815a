import SagaRuntime
import ServiceLifecycle

/// Counts the sagas that are not over, for the gauges.
struct UnfinishedSagasGauge: Service {
    /// It looks at every one of them, and people who are told of them need minutes.
    static let interval = Duration.seconds(3)

    let runtime: SagaRuntime
    let metrics: SagaMetrics

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                // A database that is away has not lost them.
                if let sagas = await self.runtime.unfinished() { self.metrics.unfinished(sagas) }
                try? await Task.sleep(for: Self.interval)
            }
        }
    }
}
