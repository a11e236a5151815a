import SagaRuntime

/// RELEASE_QUOTA: the user service is told that the device is gone, by the same rules as the undo of REPORT_QUOTA_USAGE, and under
/// the same key, so that it is told once whoever does it.
struct ReleaseQuotaStep: RemoteStep {
    /// `nil`: there is no user service here.
    let client: QuotaClient?

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool {
        guard let claimed = try? ClaimedDevice(outputs) else { return true }
        switch claimed {
        case .nothing: return false
        case .there(let device): return device.made.usage.map { $0 > 0 } ?? (self.client != nil)
        }
    }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        guard let key = try Self.key(context) else { return .done(output: "{}") }
        let (client, request) = try ReportQuotaUsageStep.parts(context, self.client)
        try await client.send(.decrement(compensating: key), for: request, authorize: context.authorize)
        return .done(output: "{}")
    }

    func resolve(_ context: StepContext) async throws(StepError) -> Resolution {
        let (client, request) = try ReportQuotaUsageStep.parts(context, self.client)
        if client.configuration.isIdempotent { return .repeatable }
        switch client.configuration.doubt {
        case .park: return .undecidable(ReportQuotaUsageStep.undoInDoubt)
        case .accept:
            if let key = try Self.key(context) {
                client.assume(.decrement(compensating: key), for: request, of: context.sagaID)
            }
            return .assumed(output: "{}", ReportQuotaUsageStep.assumedTakenBack)
        }
    }

    /// Comes after the pivot: there is no undo.
    func compensate(_ context: StepContext) async throws(StepError) -> Undone { .nothingFound }

    /// A decrement under its key counts once, whoever sent it; one without is its owner's doubt.
    func discard(_ context: StepContext, output: String?) async throws(StepError) {}

    func dependency(request: [UInt8], outputs: [String: String]) -> String? { "user-service" }

    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { .zero }

    /// `nil`: there is nothing to take back.
    private static func key(_ context: StepContext) throws(StepError) -> String? {
        guard let device = try ClaimedDevice.claim(of: context) else { return nil }
        let generation = device.made.usage ?? 1
        return generation > 0 ? UsageKey.key(device.creation, generation: generation) : nil
    }
}
