public import SagaRuntime

extension SagaSnapshot {
    /// What the provider made, once it is recorded.
    public var providerDevice: ProviderDevice? {
        self.output(of: DeviceStep.createProviderDevice).flatMap { try? ProviderDevice(output: $0) }
    }

    /// When the device's record was last written: its row's `updated_at`.
    public var deviceUpdatedAt: Timestamp {
        let written = [DeviceStep.startDevice, DeviceStep.createDatabaseRecord].compactMap { name in
            self.steps.first { $0.name == name && $0.isDone }?.finishedAt
        }
        return written.first ?? self.createdAt
    }

    /// The saga that it waits for, since that one holds its device; `nil`: none.
    public var blockingSaga: String? {
        guard self.status.isActive || self.status == .parked, self.currentStep == DeviceStep.claimDevice,
            case .held(let holder, _) = ClaimedWay(output: self.output(of: DeviceStep.claimDevice))
        else { return nil }
        return holder
    }

    /// How to reach the device, once it runs.
    public var deviceConnection: DeviceConnection? {
        self.output(of: DeviceStep.startDevice).flatMap { DeviceConnection(output: $0) }
    }
}

extension DeviceConnection {
    init?(output: String) {
        guard let value = try? JSONValue(parsing: output) else { return nil }
        self.init(
            host: value["host"]?.string ?? "", adbPort: value["adb"]?.integer ?? 0,
            webRTCPort: value["webrtc"]?.integer ?? 0, attributes: value["attributes"]?.strings ?? [:])
    }
}
