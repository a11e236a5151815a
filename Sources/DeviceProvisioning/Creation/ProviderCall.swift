import SagaRuntime

/// What a step needs to talk to a provider, read from the saga's stored bytes.
struct ProviderCall {
    var provider: any DeviceProvider
    var request: ProviderRequest
    /// What CREATE_PROVIDER_DEVICE recorded, if it is done.
    var recorded: ProviderDevice?

    init(_ context: StepContext, _ providers: ProviderRegistry) throws(StepError) {
        let stored: DeviceRequest
        let options: [String: String]
        let ports: PortPair?
        do throws(StoredDataError) {
            stored = try DeviceRequest(decoding: context.request)
            options = try ProviderOptions.decode(context.secrets)
            ports = try PortPair(output: context.outputs[DeviceStep.allocatePorts])
            if let output = context.outputs[DeviceStep.createProviderDevice] {
                self.recorded = try ProviderDevice(output: output)
            }
        } catch {
            throw StepError(.undecidable, reason: DeviceFailureReason.unreadable, message: error.message)
        }
        guard let provider = providers[stored.provider] else {
            // Another replica, or this one under another configuration, may have it.
            throw StepError(
                .unavailable, reason: DeviceFailureReason.providerUnavailable,
                message: "provider \(stored.provider.name) is not configured on this server")
        }
        self.provider = provider
        self.request = ProviderRequest(
            sagaID: context.sagaID, generation: context.generation, idempotencyKey: context.idempotencyKey,
            deviceID: stored.deviceID, userID: stored.userID, name: stored.name, spec: stored.spec, options: options,
            ports: ports, attempt: context.attempt, authorize: context.authorize)
    }
}
