import Testing

@testable import RPCTransport

@Suite struct CallRetryTests {
    private static let policy = RPCRetryPolicy(
        maximumAttempts: 3, initialBackoff: .milliseconds(100), maximumBackoff: .milliseconds(150), backoffFactor: 2)

    private var throttle = RetryThrottle(nil)

    private static func error(
        _ code: RPCCode = .unavailable, pushback: String? = nil, _ progress: RPCError.Progress = .maybeBegun
    ) -> RPCError {
        var metadata = Metadata()
        if let pushback { metadata.append("grpc-retry-pushback-ms", pushback) }
        var error = RPCError(code, "", metadata: metadata)
        error.progress = progress
        return error
    }

    @Test mutating func unavailableIsTriedAgainWithGrowingWaits() {
        var retry = CallRetry(Self.policy)
        expectEqual(retry.attemptFailed(Self.error(), &self.throttle, random: 0.5), .againAfter(.milliseconds(100)))
        #expect(retry.previousAttempts == 1)
        expectEqual(retry.attemptFailed(Self.error(), &self.throttle, random: 0.5), .againAfter(.milliseconds(150)))
        #expect(retry.previousAttempts == 2)
        expectEqual(retry.attemptFailed(Self.error(), &self.throttle, random: 0.5), .fail)
    }

    @Test(arguments: [(0.0, 80), (1.0, 120)])
    mutating func waitsVaryByAFifth(random: Double, milliseconds: Int) {
        var retry = CallRetry(Self.policy)
        guard case .againAfter(let wait) = retry.attemptFailed(Self.error(), &self.throttle, random: random) else {
            Issue.record("it is not tried again")
            return
        }
        let off = wait - .milliseconds(milliseconds)
        #expect(off > .microseconds(-1) && off < .microseconds(1))
    }

    @Test mutating func otherStatusesAndCallsWithoutAPolicyFail() {
        var retry = CallRetry(Self.policy)
        expectEqual(retry.attemptFailed(Self.error(.internal), &self.throttle, random: 0), .fail)
        var without = CallRetry(nil)
        expectEqual(without.attemptFailed(Self.error(), &self.throttle, random: 0), .fail)
    }

    @Test mutating func aResponseThatHasBegunIsFinal() {
        var retry = CallRetry(Self.policy)
        retry.commit()
        expectEqual(retry.attemptFailed(Self.error(), &self.throttle, random: 0), .fail)
        expectEqual(retry.attemptFailed(Self.error(.unavailable, .refused), &self.throttle, random: 0), .fail)
    }

    @Test mutating func pushbackWinsAndStartsTheWaitsAnew() {
        var policy = Self.policy
        policy.maximumAttempts = 5
        var retry = CallRetry(policy)
        _ = retry.attemptFailed(Self.error(), &self.throttle, random: 0.5)
        let pushed = retry.attemptFailed(Self.error(pushback: "700"), &self.throttle, random: 0.5)
        #expect(pushed == .againAfter(.milliseconds(700)))
        expectEqual(retry.attemptFailed(Self.error(), &self.throttle, random: 0.5), .againAfter(.milliseconds(100)))
    }

    @Test(arguments: [
        "-1", "soon", "", "+5", "5 ", "1e3", "2147483648", "99999999999999999999", "-99999999999999999999",
    ])
    mutating func negativeOrMalformedPushbackForbidsAnotherTry(text: String) {
        var retry = CallRetry(Self.policy)
        expectEqual(retry.attemptFailed(Self.error(pushback: text), &self.throttle, random: 0), .fail)
    }

    /// gRFC A6, "Transparent Retries": once if the server has seen it, as often as needed if not; neither counts.
    @Test mutating func whatTheServerHasNotSeenIsSentAgain() {
        var retry = CallRetry(nil)
        for _ in 0..<5 {
            expectEqual(retry.attemptFailed(Self.error(.unavailable, .notSent), &self.throttle, random: 0), .again)
        }
        expectEqual(retry.attemptFailed(Self.error(.unavailable, .refused), &self.throttle, random: 0), .again)
        expectEqual(retry.attemptFailed(Self.error(.unavailable, .refused), &self.throttle, random: 0), .fail)
        #expect(retry.previousAttempts == 0)
    }

    @Test mutating func theSecondRefusalFollowsThePolicy() {
        var retry = CallRetry(Self.policy)
        _ = retry.attemptFailed(Self.error(.unavailable, .refused), &self.throttle, random: 0.5)
        let decision = retry.attemptFailed(Self.error(.unavailable, .refused), &self.throttle, random: 0.5)
        #expect(decision == .againAfter(.milliseconds(100)))
    }

    @Test func failuresUseUpTheTokensOfAllCalls() {
        var throttle = RetryThrottle(RPCRetryThrottling(maximumTokens: 4, tokenRatio: 0.5))
        var first = CallRetry(Self.policy)
        expectEqual(first.attemptFailed(Self.error(), &throttle, random: 0.5), .againAfter(.milliseconds(100)))
        var second = CallRetry(Self.policy)
        expectEqual(second.attemptFailed(Self.error(), &throttle, random: 0.5), .fail)
        #expect(throttle.tokens == 2)
        for _ in 0..<9 { throttle.succeeded() }
        #expect(throttle.tokens == 4)
        var third = CallRetry(Self.policy)
        expectEqual(third.attemptFailed(Self.error(), &throttle, random: 0.5), .againAfter(.milliseconds(100)))
        // Being told to stop costs a token too; a status that isn't worth another try doesn't.
        var stopped = CallRetry(Self.policy)
        expectEqual(stopped.attemptFailed(Self.error(.notFound, pushback: "-1"), &throttle, random: 0.5), .fail)
        #expect(throttle.tokens == 2)
        var other = CallRetry(Self.policy)
        expectEqual(other.attemptFailed(Self.error(.notFound), &throttle, random: 0.5), .fail)
        #expect(throttle.tokens == 2)
    }
}
