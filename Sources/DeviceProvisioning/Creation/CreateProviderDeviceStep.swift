import SagaRuntime

/// CREATE_PROVIDER_DEVICE: the provider makes the device; its undo destroys whatever the provider has of this saga.
struct CreateProviderDeviceStep: RemoteStep {
    let providers: ProviderRegistry

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        let call = try ProviderCall(context, self.providers)
        return .done(output: try await call.provider.create(call.request).output)
    }

    /// Looks over all generations: adopts the device of this one, and destroys everything else, which can only be the
    /// late effect of an attempt that had been given up.
    func resolve(_ context: StepContext) async throws(StepError) -> Resolution {
        let call = try ProviderCall(context, self.providers)
        var adopted: ProviderDevice?
        for device in try await call.provider.find(call.request) {
            if adopted == nil, device.isUsable, device.generation == context.generation {
                adopted = device
            } else {
                try await call.provider.discard(device, call.request)
            }
        }
        if let adopted { return .happened(output: adopted.output) }
        return call.provider.createIsUniqueByKey(options: call.request.options) ? .repeatable : .absent
    }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone {
        try await ProviderCall(context, self.providers).destroy(isInDoubt: context.isInDoubt)
    }

    func discard(_ context: StepContext, output: String?) async throws(StepError) {
        let call = try ProviderCall(context, self.providers)
        let candidates: [ProviderDevice]
        if let output, let made = try? ProviderDevice(output: output) {
            candidates = [made]
        } else {
            candidates = try await call.provider.find(call.request)
        }
        for device in candidates where device.externalID != call.recorded?.externalID {
            try await call.provider.discard(device, call.request)
        }
    }

    func dependency(request: [UInt8], outputs: [String: String]) -> String? {
        self.providers.dependency(of: request, outputs: outputs)
    }

    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration {
        guard let request = try? DeviceRequest(decoding: request),
            let lag = self.providers.lag(
                of: request.provider, options: (try? ProviderOptions.decode(secrets)) ?? [:])
        else { return .seconds(30) }
        return lag
    }
}
