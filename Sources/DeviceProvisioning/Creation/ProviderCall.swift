import SagaRuntime

/// What a step needs to talk to a provider, read from the saga's stored bytes.
struct ProviderCall {
    var provider: any DeviceProvider
    /// The site's name.
    var site: String
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
        // Another replica, or this one under another configuration, may have what is missing here.
        let site: ProviderSite
        if let name = SiteOutput.site(context.outputs) {
            guard let found = providers.site(named: name, kind: stored.provider) else {
                throw Self.unavailable("site \(name) is not configured on this server")
            }
            site = found
        } else {
            guard let found = providers.site(of: stored.provider, portHost: ports?.host) else {
                throw Self.unavailable(
                    "no site of provider \(stored.provider.name) on this server is known to be the saga's")
            }
            site = found
        }
        self.provider = site.provider
        self.site = site.name
        self.request = ProviderRequest(
            sagaID: context.sagaID, generation: context.generation, idempotencyKey: context.idempotencyKey,
            deviceID: stored.deviceID, userID: stored.userID, name: stored.name, spec: stored.spec, options: options,
            ports: ports, attempt: context.attempt, authorize: context.authorize)
    }

    private static func unavailable(_ message: String) -> StepError {
        StepError(.unavailable, reason: DeviceFailureReason.providerUnavailable, message: message)
    }
}
