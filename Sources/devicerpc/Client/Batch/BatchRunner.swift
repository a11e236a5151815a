import DeviceRPC

/// Runs a batch on one stream, a bounded number of creations at once. A server that is away or overloaded is asked again under the same
/// request id; everything else is an outcome.
struct BatchRunner {
    let client: DeviceClient
    let parallel: Int
    /// For each request, with all its tries.
    let timeout: Duration
    /// After so many failures nothing more is started; `nil`: all are.
    var maximumFailures: Int?

    /// - Parameter onOutcome: called once per request that was started, as it ends.
    func run(
        _ plan: BatchPlan, onOutcome: @escaping @Sendable (BatchPlan.Item, BatchOutcome) -> Void
    ) async throws {
        let tickets = Ticket()
        let failures = Shared(0)
        let stream = CreationStream(self.client)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<min(self.parallel, plan.items.count) {
                group.addTask {
                    while true {
                        if let maximum = self.maximumFailures, failures.current >= maximum { return }
                        let index = tickets.next()
                        guard index < plan.items.count else { return }
                        let item = plan.items[index]
                        let outcome = try await self.run(item, on: stream)
                        if !outcome.isSuccess { failures.withLock { $0 += 1 } }
                        onOutcome(item, outcome)
                    }
                }
            }
            try await group.waitForAll()
        }
        await stream.finish()
    }

    private func run(_ item: BatchPlan.Item, on stream: CreationStream) async throws -> BatchOutcome {
        do {
            let response = try await Retry.run(within: self.timeout) { remaining in
                try await stream.create(item.request, timeout: remaining)
            }
            return BatchOutcome(response, item)
        } catch let failure as CallFailure {
            return BatchOutcome(failure, item)
        }
    }
}
