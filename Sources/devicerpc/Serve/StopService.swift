import ServiceLifecycle

/// Begins the graceful shutdown once it is requested, also before the group of services runs. Comes first in the group, and
/// so is the last to go.
struct StopService: Service {
    private let group: ServiceGroupBox
    private let requests = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))

    init(group: ServiceGroupBox) { self.group = group }

    func request() { self.requests.continuation.yield() }

    func run() async throws {
        for await _ in self.requests.stream.cancelOnGracefulShutdown() { await self.group.triggerGracefulShutdown() }
    }
}
