/// Does something to each of many, at a bounded rate.
enum EachOfMany {
    /// - Parameters:
    ///   - rate: so many begin in a second.
    ///   - parallel: so many are under way at once.
    ///   - body: does it to one, and returns what came of it.
    /// - Throws: `Exit` with the gravest of what came of them, unless that is success.
    static func run(
        _ ids: [String], rate: Int, parallel: Int, _ body: @escaping @Sendable (String) async throws -> CommandStatus
    ) async throws {
        var statuses: Set<CommandStatus> = []
        let start = ContinuousClock.now
        try await withThrowingTaskGroup(of: CommandStatus.self) { group in
            for (index, id) in ids.enumerated() {
                try await Task.sleep(until: start + .seconds(1) * index / rate)
                if index >= parallel, let status = try await group.next() { statuses.insert(status) }
                group.addTask { try await body(id) }
            }
            for try await status in group { statuses.insert(status) }
        }
        statuses.remove(.success)
        if let worst = statuses.max(by: { $0.rawValue < $1.rawValue }) { throw Exit(worst) }
    }
}
