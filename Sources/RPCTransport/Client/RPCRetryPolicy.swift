/// When a call that failed is tried again (gRFC A6). Only for calls that may reach the server twice without harm.
///
/// A call is tried again only until the response's headers have come; from then on it is the caller's. Calls that the
/// server cannot have begun (never sent, refused, above the last stream of a GOAWAY) are sent again without a policy.
public struct RPCRetryPolicy: Sendable, Hashable {
    /// Tries in all, the first one included; 1 is none again.
    public var maximumAttempts: Int
    /// The wait before the second try; it grows by `backoffFactor` up to `maximumBackoff`, varied by a fifth either way.
    /// The server's `grpc-retry-pushback-ms` wins, and forbids another try if it is negative.
    public var initialBackoff: Duration
    public var maximumBackoff: Duration
    public var backoffFactor: Double
    /// The statuses that are worth another try.
    public var codes: Set<RPCCode>

    public init(
        maximumAttempts: Int = 4, initialBackoff: Duration = .milliseconds(100), maximumBackoff: Duration = .seconds(2),
        backoffFactor: Double = 2, codes: Set<RPCCode> = [.unavailable]
    ) {
        self.maximumAttempts = maximumAttempts
        self.initialBackoff = initialBackoff
        self.maximumBackoff = maximumBackoff
        self.backoffFactor = backoffFactor
        self.codes = codes
    }
}

/// Keeps retries from burying a server that fails (gRFC A6): every failure costs a token, every success gives back
/// `tokenRatio` of one, and with half of the tokens or fewer nothing is tried again.
public struct RPCRetryThrottling: Sendable, Hashable {
    public var maximumTokens: Double
    public var tokenRatio: Double

    public init(maximumTokens: Double = 100, tokenRatio: Double = 0.1) {
        self.maximumTokens = maximumTokens
        self.tokenRatio = tokenRatio
    }
}
