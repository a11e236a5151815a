import SagaRuntime

/// DESTROY_PROVIDER_DEVICE: the provider destroys whatever it has of the device. One that it has lost is destroyed already.
struct DestroyProviderDeviceStep: RemoteStep {
    let providers: ProviderRegistry

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        // What there is to destroy is known only since the flush that started this step.
        guard let device = try ClaimedDevice.claim(of: context) else { return .done(output: "{}") }
        _ = try await ProviderCall(claimed: device, context, self.providers).destroy(isInDoubt: true)
        guard device.made.isInDoubt else { return .done(output: "{}") }
        // A call that made it was not answered: once nothing of it can appear any more, whatever has appeared is destroyed too.
        return .pending(
            PendingJob(
                output: #"{"settling":true}"#, note: "looks again once nothing of the creation can appear any more",
                pollAfter: self.settleTime(request: context.request, secrets: [])))
    }

    func poll(_ context: StepContext) async throws(StepError) -> Execution {
        guard let device = try ClaimedDevice.claim(of: context) else { return .done(output: "{}") }
        _ = try await ProviderCall(claimed: device, context, self.providers).destroy(isInDoubt: true)
        return .done(output: "{}")
    }

    /// Destroying what is destroyed changes nothing.
    var isRepeatable: Bool { true }
    func resolve(_ context: StepContext) async throws(StepError) -> Resolution { .repeatable }

    /// It is the pivot: there is no undo.
    func compensate(_ context: StepContext) async throws(StepError) -> Undone { .nothingFound }

    func discard(_ context: StepContext, output: String?) async throws(StepError) {}

    func dependency(request: [UInt8], outputs: [String: String]) -> String? {
        self.providers.dependency(of: request, outputs: outputs)
    }

    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration {
        self.providers.settleTime(of: request)
    }
}
