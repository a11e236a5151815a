import SagaRuntime

/// START_DEVICE: started, reachable, booted. Its undo is part of the device's destruction.
struct StartDeviceStep: RemoteStep {
    let providers: ProviderRegistry

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        let call = try ProviderCall(context, self.providers)
        guard let device = call.recorded else {
            throw StepError(
                .undecidable, reason: DeviceFailureReason.unreadable,
                message: "the output of \(DeviceStep.createProviderDevice) is missing")
        }
        return .done(output: try await call.provider.start(device, call.request).output)
    }

    /// Starting what already runs changes nothing.
    var isRepeatable: Bool { true }
    func resolve(_ context: StepContext) async throws(StepError) -> Resolution { .repeatable }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone { .nothingFound }

    func discard(_ context: StepContext, output: String?) async throws(StepError) {}

    func dependency(request: [UInt8], outputs: [String: String]) -> String? {
        self.providers.dependency(of: request, outputs: outputs)
    }

    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { .zero }
}
