/// A device, or what is left of one, as its provider knows it. Output of CREATE_PROVIDER_DEVICE, so at most a few
/// hundred bytes as JSON, and without secrets.
public struct ProviderDevice: Sendable, Equatable, Codable {
    /// The provider's own id.
    public var externalID: String
    /// Where it runs, as `PortHost.name` or a region; empty where that means nothing.
    public var host: String
    /// The generation that it was made under.
    public var generation: Int
    /// False: a remnant or something half made (a volume without a container, a container that never started). It
    /// counts for undo and audit, but must not be adopted as the result of a create.
    public var isUsable: Bool
    /// What the provider needs to find its parts again; provider specific.
    public var attributes: [String: String]

    public init(
        externalID: String, host: String, generation: Int, isUsable: Bool = true, attributes: [String: String] = [:]
    ) {
        self.externalID = externalID
        self.host = host
        self.generation = generation
        self.isUsable = isUsable
        self.attributes = attributes
    }
}

/// How to reach a device that runs. Output of START_DEVICE.
public struct DeviceConnection: Sendable, Equatable, Codable {
    public var host: String
    /// 0: none.
    public var adbPort: Int
    /// 0: none.
    public var webRTCPort: Int
    /// What the provider adds; never a secret.
    public var attributes: [String: String]

    public init(host: String, adbPort: Int, webRTCPort: Int, attributes: [String: String] = [:]) {
        self.host = host
        self.adbPort = adbPort
        self.webRTCPort = webRTCPort
        self.attributes = attributes
    }
}

/// Something at a provider that carries our installation's label, for audits and the orphan sweep.
public struct OwnedDevice: Sendable, Equatable {
    public var device: ProviderDevice
    /// As the label says it; not checked, since anybody with access to the provider can write labels.
    public var sagaID: String
    public var deviceID: String
    public var userID: String

    public init(device: ProviderDevice, sagaID: String, deviceID: String, userID: String) {
        self.device = device
        self.sagaID = sagaID
        self.deviceID = deviceID
        self.userID = userID
    }
}

/// What is wrong with a request, in a provider's eyes; becomes one `google.rpc.BadRequest.FieldViolation`.
public struct ProviderViolation: Sendable, Equatable {
    /// The contract's path, e.g. `spec.android_version`, `provider_options.fps`.
    public var field: String
    /// Says what is allowed; never repeats an option's value.
    public var description: String

    public init(field: String, description: String) {
        self.field = field
        self.description = description
    }
}
