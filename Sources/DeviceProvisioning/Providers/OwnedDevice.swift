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
