/// Decides what follows when a try of a call has failed (gRFC A6). Pure: randomness comes in, and so do the tokens,
/// which all calls of a client share.
struct CallRetry {
    enum Decision: Equatable {
        /// The failure is the call's.
        case fail
        /// The server has not seen the call: at once, on whatever connection there is.
        case again
        case againAfter(Duration)
    }

    private let policy: RPCRetryPolicy?
    /// The response has begun, or the request is no longer kept: there is no way back.
    private(set) var isCommitted = false
    /// Tries that a server may have seen: `grpc-previous-rpc-attempts`.
    private(set) var previousAttempts = 0
    private var wasRefused = false
    /// Waits since the first try, or since the server said how long to wait.
    private var waits = 0

    init(_ policy: RPCRetryPolicy?) { self.policy = policy }

    mutating func commit() { self.isCommitted = true }

    /// - Parameter random: from 0 to 1, for the wait.
    mutating func attemptFailed(_ error: RPCError, _ throttle: inout RetryThrottle, random: Double) -> Decision {
        guard !self.isCommitted else { return .fail }
        switch error.progress {
        case .notSent: return .again
        case .refused where !self.wasRefused:
            self.wasRefused = true
            return .again
        case .refused, .maybeBegun: break
        }
        guard let policy = self.policy else { return .fail }
        let pushback = Pushback(error.metadata)
        let isRetryable = policy.codes.contains(error.code)
        guard isRetryable || pushback == .stop else { return .fail }
        let isAllowed = throttle.failed()
        guard isAllowed, pushback != .stop, self.previousAttempts + 1 < policy.maximumAttempts else { return .fail }
        self.previousAttempts += 1
        if case .wait(let duration) = pushback {
            self.waits = 0
            return .againAfter(duration)
        }
        let backoff = ExponentialBackoff(
            initial: policy.initialBackoff, maximum: policy.maximumBackoff, factor: policy.backoffFactor, jitter: 0.2)
        self.waits += 1
        return .againAfter(backoff.delay(step: self.waits - 1, random: random))
    }
}

/// What `grpc-retry-pushback-ms` says.
enum Pushback: Equatable {
    case none
    case wait(Duration)
    /// It is negative, too large or no number: no other try.
    case stop

    init(_ metadata: Metadata) {
        guard let text = metadata.first("grpc-retry-pushback-ms") else {
            self = .none
            return
        }
        guard text.utf8.allSatisfy({ (48...57).contains($0) }), let milliseconds = Int32(text) else {
            self = .stop
            return
        }
        self = .wait(.milliseconds(milliseconds))
    }
}
