import DeviceRPC

/// Runs a batch, a bounded number of calls at once. A server that is away or overloaded is asked again under the same
/// request id; everything else is an outcome.
struct BatchRunner {
    let client: DeviceClient
    let parallel: Int
    /// For each request, with all its tries.
    let timeout: Duration

    /// - Parameter onOutcome: called once per request, as it ends.
    func run(
        _ plan: BatchPlan, onOutcome: @escaping @Sendable (BatchPlan.Item, BatchOutcome) -> Void
    ) async throws {
        let tickets = Ticket()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<min(self.parallel, plan.items.count) {
                group.addTask {
                    while true {
                        let index = tickets.next()
                        guard index < plan.items.count else { return }
                        let item = plan.items[index]
                        onOutcome(item, try await self.run(item))
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    private func run(_ item: BatchPlan.Item) async throws -> BatchOutcome {
        do {
            let response = try await Retry.run(within: self.timeout) { remaining in
                try await self.client.createDevice(item.request, timeout: remaining)
            }
            return BatchOutcome(response, item)
        } catch let failure as CallFailure {
            return BatchOutcome(failure, item)
        }
    }
}
