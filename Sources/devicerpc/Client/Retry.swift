/// Repeats a call under the same request id while the server can't take it.
enum Retry {
    static let initialDelay = Duration.milliseconds(200)
    static let maximumDelay = Duration.seconds(5)

    /// - Parameters:
    ///   - limit: no new try starts later than this.
    ///   - onRetry: told why, before each wait.
    static func run<T>(
        within limit: Duration, onRetry: (CallFailure, Duration) -> Void = { _, _ in },
        _ call: (_ remaining: Duration) async throws -> T
    ) async throws -> T {
        let end = ContinuousClock.now + limit
        var delay = Self.initialDelay
        while true {
            do {
                return try await call(max(.milliseconds(1), end - .now))
            } catch let failure as CallFailure where failure.isRetryable {
                let jittered = failure.pushback ?? delay * Double.random(in: 0.5...1)
                if ContinuousClock.now + jittered >= end { throw failure }
                onRetry(failure, jittered)
                try await Task.sleep(for: jittered)
                delay = min(delay * 2, Self.maximumDelay)
            }
        }
    }
}
