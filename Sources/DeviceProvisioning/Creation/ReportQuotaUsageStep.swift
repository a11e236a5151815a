import SagaRuntime

/// REPORT_QUOTA_USAGE: the user service counts the device; its undo takes that back.
///
/// A service that honours keys may be told any number of times. One that doesn't is told once: where it is not known
/// whether that arrived, in either direction, the saga parks instead of counting twice or taking back what was never counted.
struct ReportQuotaUsageStep: RemoteStep {
    /// `nil`: there is no user service, and nothing to do.
    let client: QuotaClient?

    /// A request's own time limit comes first, so that giving up is the client's decision.
    static func callLimit(_ client: QuotaClient?) -> Duration {
        (client?.configuration.timeout ?? .seconds(5)) + .seconds(5)
    }

    func isNeeded(request: [UInt8]) -> Bool { self.client != nil }

    func execute(_ context: StepContext) async throws(StepError) -> String {
        let (client, request) = try self.parts(context)
        try await client.send(
            .increment(key: context.idempotencyKey), for: request, authorize: context.authorize)
        return "{}"
    }

    func resolve(_ context: StepContext) async throws(StepError) -> Resolution {
        let (client, _) = try self.parts(context)
        return client.configuration.isIdempotent ? .repeatable : .undecidable(Self.inDoubt)
    }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone {
        let (client, request) = try self.parts(context)
        let isIdempotent = client.configuration.isIdempotent
        if context.isInDoubt, !isIdempotent { throw Self.inDoubt }
        if context.isRepeat, !isIdempotent { throw Self.undoInDoubt }
        do throws(StepError) {
            try await client.send(
                .decrement(compensating: context.idempotencyKey), for: request, authorize: context.authorize)
        } catch {
            guard error.errorClass == .unknownOutcome, !isIdempotent else { throw error }
            throw Self.undoInDoubt
        }
        return .undone
    }

    /// The saga's other owner decides by the journal; the key makes the two reports one.
    func discard(_ context: StepContext, output: String?) async throws(StepError) {}

    func dependency(request: [UInt8]) -> String? { "user-service" }

    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { .zero }

    private static let inDoubt = StepError(
        .undecidable, reason: DeviceFailureReason.quotaUnavailable,
        message: "whether the usage was reported is not known, and the user service does not honour keys")

    private static let undoInDoubt = StepError(
        .undecidable, reason: DeviceFailureReason.quotaUnavailable,
        message: "whether the usage was taken back is not known, and the user service does not honour keys")

    private func parts(_ context: StepContext) throws(StepError) -> (QuotaClient, DeviceRequest) {
        guard let client = self.client else {
            // Reported by a server that has a user service, and taken back by one that hasn't: wait for the former.
            throw StepError(
                .unavailable, reason: DeviceFailureReason.quotaUnavailable,
                message: "no user service is configured on this server")
        }
        guard let request = try? DeviceRequest(decoding: context.request) else {
            throw StepError(
                .undecidable, reason: DeviceFailureReason.unreadable, message: "the saga's stored request is unreadable"
            )
        }
        return (client, request)
    }
}
