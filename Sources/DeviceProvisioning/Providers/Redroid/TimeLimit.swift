/// Bounds a piece of asynchronous work in time.
enum TimeLimit {
    struct Exceeded: Error {}

    /// Runs `work` and cancels it at `deadline`; then throws `Exceeded`. Work must react to cancellation.
    static func run<Value: Sendable>(
        until deadline: ContinuousClock.Instant, _ work: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await work() }
            group.addTask {
                try await Task.sleep(until: deadline, clock: .continuous)
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let value = first else { throw Exceeded() }
            return value
        }
    }
}
