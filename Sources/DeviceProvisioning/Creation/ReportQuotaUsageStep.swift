import SagaRuntime

/// REPORT_QUOTA_USAGE: the user service counts the device; its undo takes that back.
///
/// A service that honours keys may be told any number of times. One that doesn't is told once: where it is not known
/// whether that arrived, in either direction, the saga parks instead of counting twice or taking back what was never counted;
/// or it goes on as if it had arrived, where the operator has chosen that (`QuotaConfiguration.Doubt`).
struct ReportQuotaUsageStep: RemoteStep {
    /// `nil`: there is no user service, and nothing to do.
    let client: QuotaClient?

    /// A request's own time limit comes first, so that giving up is the client's decision. An undo may take two requests.
    static func callLimit(_ client: QuotaClient?) -> Duration {
        guard let configuration = client?.configuration else { return .seconds(10) }
        return configuration.undoTimeout * (configuration.isIdempotent ? 2 : 1) + .seconds(5)
    }

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { self.client != nil }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        let (client, request) = try self.parts(context)
        try await client.send(
            .increment(key: context.idempotencyKey), for: request, authorize: context.authorize)
        return .done(output: UsageKey.output(generation: context.generation))
    }

    func resolve(_ context: StepContext) async throws(StepError) -> Resolution {
        let (client, request) = try self.parts(context)
        if client.configuration.isIdempotent { return .repeatable }
        switch client.configuration.doubt {
        case .park: return .undecidable(Self.inDoubt)
        case .accept:
            client.assume(.increment(key: context.idempotencyKey), for: request, of: context.sagaID)
            return .assumed(output: UsageKey.output(generation: context.generation), Self.assumedCounted)
        }
    }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone {
        let (client, request) = try self.parts(context)
        let key = context.idempotencyKey
        if client.configuration.isIdempotent {
            return try await Self.takeBack(
                key, client, request, isInDoubt: context.isInDoubt, authorize: context.authorize)
        }
        if context.isInDoubt { return try Self.leave(Self.inDoubt, key, client, request, context) }
        if context.isRepeat { return try Self.leave(Self.undoInDoubt, key, client, request, context) }
        do throws(StepError) {
            try await client.send(.decrement(compensating: key), for: request, authorize: context.authorize)
        } catch {
            guard error.errorClass == .unknownOutcome else { throw error }
            return try Self.leave(Self.undoInDoubt, key, client, request, context)
        }
        return .undone
    }

    /// Takes back what a service that honours keys has counted under `key`.
    ///
    /// An increment in doubt is repeated first: then it is counted, once, whether or not it was before, and the decrement
    /// takes back just that. Both have keys of their own, so that whoever comes after a crash at any point may do
    /// both again, and an increment that was held up on its way finds its key used. A service that refuses the repetition hasn't
    /// counted anything under this key; that is believed after the settle time.
    private static func takeBack(
        _ key: String, _ client: QuotaClient, _ request: DeviceRequest, isInDoubt: Bool,
        authorize: @escaping @Sendable () throws(StepError) -> Void
    ) async throws(StepError) -> Undone {
        if isInDoubt {
            do throws(StepError) {
                try await client.send(.confirmation(key: key), for: request, authorize: authorize)
            } catch {
                guard error.errorClass == .refused else { throw error }
                return .nothingFound
            }
        }
        try await client.send(.decrement(compensating: key), for: request, authorize: authorize)
        return .undone
    }

    /// What can't be decided by asking: the saga parks, or goes on as if the usage had been taken back.
    private static func leave(
        _ error: StepError, _ key: String, _ client: QuotaClient, _ request: DeviceRequest, _ context: StepContext
    ) throws(StepError) -> Undone {
        switch client.configuration.doubt {
        case .park: throw error
        case .accept:
            client.assume(.decrement(compensating: key), for: request, of: context.sagaID)
            return .assumed(Self.assumedTakenBack)
        }
    }

    /// A call that left after its saga had been decided without it: what it counted, nobody else takes back. Where keys are
    /// ignored, its owner has parked the saga, or accepted the doubt.
    func discard(_ context: StepContext, output: String?) async throws(StepError) {
        let (client, request) = try self.parts(context)
        // What the saga holds was counted under the very key of this call.
        guard client.configuration.isIdempotent, context.outputs[DeviceStep.reportQuotaUsage] == nil else { return }
        _ = try await Self.takeBack(
            context.idempotencyKey, client, request, isInDoubt: true, authorize: context.authorize)
    }

    func dependency(request: [UInt8], outputs: [String: String]) -> String? { "user-service" }

    /// A request that was given up may lie in the service's own queue for about as long as we would have waited for it.
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration {
        guard let configuration = self.client?.configuration, configuration.isIdempotent else { return .zero }
        return configuration.timeout + .seconds(5)
    }

    private static let inDoubt = StepError(
        .undecidable, reason: DeviceFailureReason.quotaUnavailable,
        message: "whether the usage was reported is not known, and the user service does not honour keys")

    static let undoInDoubt = StepError(
        .undecidable, reason: DeviceFailureReason.quotaUnavailable,
        message: "whether the usage was taken back is not known, and the user service does not honour keys")

    private static let assumedCounted = StepError(
        .undecidable, reason: DeviceFailureReason.quotaUnavailable,
        message: "whether the usage was reported is not known; assumed: it was (USER_SERVICE_DOUBT)")

    static let assumedTakenBack = StepError(
        .undecidable, reason: DeviceFailureReason.quotaUnavailable,
        message: "whether the usage was taken back is not known; assumed: there is none any more (USER_SERVICE_DOUBT)")

    private func parts(_ context: StepContext) throws(StepError) -> (QuotaClient, DeviceRequest) {
        try Self.parts(context, self.client)
    }

    static func parts(_ context: StepContext, _ client: QuotaClient?) throws(StepError) -> (QuotaClient, DeviceRequest)
    {
        guard let client else {
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
