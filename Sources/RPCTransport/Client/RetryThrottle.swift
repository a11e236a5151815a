/// The tokens that the retries of one client's calls cost.
struct RetryThrottle {
    private let configuration: RPCRetryThrottling?
    private(set) var tokens: Double

    init(_ configuration: RPCRetryThrottling?) {
        self.configuration = configuration
        self.tokens = configuration?.maximumTokens ?? 0
    }

    mutating func succeeded() {
        guard let configuration else { return }
        self.tokens = min(configuration.maximumTokens, self.tokens + configuration.tokenRatio)
    }

    /// A call failed with a status that is worth another try, or was told not to try again.
    ///
    /// - Returns: whether there may be another try.
    mutating func failed() -> Bool {
        guard let configuration else { return true }
        self.tokens = max(0, self.tokens - 1)
        return self.tokens > configuration.maximumTokens / 2
    }
}
