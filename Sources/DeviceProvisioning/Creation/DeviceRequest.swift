/// What a device is used as. Raw values are the contract's numbers.
public enum DeviceType: Int, Sendable, CaseIterable {
    case phone = 1
    case tablet = 2

    /// The contract's name without its prefix, as the database holds it.
    public var name: String {
        switch self {
        case .phone: "PHONE"
        case .tablet: "TABLET"
        }
    }

    public init?(name: String) {
        guard let type = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = type
    }
}

/// What a DEVICE_CREATION saga was asked for, with all defaults filled in: the payload that its journal keeps.
///
/// Option values are secrets and are kept apart: see `ProviderOptions`.
public struct DeviceRequest: Sendable, Equatable {
    /// UUID text, lower case; minted before the saga starts (`DeviceID.mint`).
    public var deviceID: String
    public var name: String
    public var description: String
    public var type: DeviceType
    public var provider: ProviderKind
    public var userID: String
    public var tenantID: String
    public var spec: DeviceSpec
    public var tags: [String]
    public var metadata: [String: String]

    public init(
        deviceID: String, name: String, description: String = "", type: DeviceType = .phone, provider: ProviderKind,
        userID: String, tenantID: String = "", spec: DeviceSpec = .default, tags: [String] = [],
        metadata: [String: String] = [:]
    ) {
        self.deviceID = deviceID
        self.name = name
        self.description = description
        self.type = type
        self.provider = provider
        self.userID = userID
        self.tenantID = tenantID
        self.spec = spec
        self.tags = tags
        self.metadata = metadata
    }
}

extension DeviceSpec {
    /// What the contract fills in for zero.
    public static let `default` = DeviceSpec(
        cpuCores: 2, memoryMB: 4096, storageMB: 10240, widthPixels: 1920, heightPixels: 1080, dpi: 240,
        androidVersion: "11")
}
