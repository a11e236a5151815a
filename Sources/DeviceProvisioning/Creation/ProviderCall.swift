import SagaRuntime

/// What a step needs to talk to a provider, read from the saga's stored bytes.
struct ProviderCall {
    var provider: any DeviceProvider
    /// The site's name.
    var site: String
    var request: ProviderRequest
    /// What the creation made, as it is written down.
    var recorded: ProviderDevice?

    /// Of a step of the device's own creation.
    init(_ context: StepContext, _ providers: ProviderRegistry) throws(StepError) {
        let options: [String: String]
        let ports: PortPair?
        var recorded: ProviderDevice?
        do throws(StoredDataError) {
            options = try ProviderOptions.decode(context.secrets)
            ports = try PortPair(output: context.outputs[DeviceStep.allocatePorts])
            if let output = context.outputs[DeviceStep.createProviderDevice] {
                recorded = try ProviderDevice(output: output)
            }
        } catch {
            throw Self.unreadable(error)
        }
        try self.init(context, providers, creation: context.sagaID, options, ports, recorded)
    }

    /// Of a saga that has claimed the device. The creation's options went with its end.
    init(claimed device: ClaimedDevice.Device, _ context: StepContext, _ providers: ProviderRegistry) throws(StepError)
    {
        try self.init(context, providers, creation: device.creation, [:], device.ports, device.made.device)
    }

    private init(
        _ context: StepContext, _ providers: ProviderRegistry, creation: SagaID, _ options: [String: String],
        _ ports: PortPair?, _ recorded: ProviderDevice?
    ) throws(StepError) {
        let stored: DeviceRequest
        do throws(StoredDataError) {
            stored = try DeviceRequest(decoding: context.request)
        } catch {
            throw Self.unreadable(error)
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
        self.recorded = recorded
        self.request = ProviderRequest(
            sagaID: creation, generation: context.generation, idempotencyKey: context.idempotencyKey,
            deviceID: stored.deviceID, userID: stored.userID, name: stored.name, spec: stored.spec, options: options,
            ports: ports, attempt: context.attempt, authorize: context.authorize)
    }

    /// Destroys what is written down and, where that may not be all, whatever the provider has of the creation, over all
    /// generations.
    func destroy(isInDoubt: Bool) async throws(StepError) -> Undone {
        var devices: [ProviderDevice] = []
        if let recorded = self.recorded { devices.append(recorded) }
        if isInDoubt || devices.isEmpty {
            for device in try await self.provider.find(self.request)
            where !devices.contains(where: { $0.externalID == device.externalID }) {
                devices.append(device)
            }
        }
        var found = Undone.nothingFound
        for device in devices {
            if case .undone = try await self.provider.destroy(device, self.request) { found = .undone }
        }
        return found
    }

    /// The device to act on: what is written down, or else what the provider has of the creation.
    func device() async throws(StepError) -> ProviderDevice {
        if let recorded = self.recorded { return recorded }
        let found = try await self.provider.find(self.request)
        guard let device = found.last(where: \.isUsable) ?? found.last else {
            throw StepError(
                .notFound, reason: DeviceFailureReason.bootFailed, message: "the provider has no such device")
        }
        return device
    }

    private static func unavailable(_ message: String) -> StepError {
        StepError(.unavailable, reason: DeviceFailureReason.providerUnavailable, message: message)
    }

    private static func unreadable(_ error: StoredDataError) -> StepError {
        StepError(.undecidable, reason: DeviceFailureReason.unreadable, message: error.message)
    }
}
