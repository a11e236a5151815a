/// A place where a provider makes devices, by its name: a Docker engine, a cloud account in a region (docs/sites.md).
public struct ProviderSite: Sendable {
    /// Unique over all providers; sagas, rows and other replicas know the site by it.
    public var name: String
    public var provider: any DeviceProvider
    public var limits: SiteLimits

    public init(name: String, provider: any DeviceProvider, limits: SiteLimits = SiteLimits()) {
        self.name = name
        self.provider = provider
        self.limits = limits
    }

    /// Whether its limits are reached before its ports run out.
    var limitsBeforePorts: Bool {
        guard case .hosts(let hosts) = self.provider.portPool?.supply else {
            return self.limits.devices != nil || self.limits.memoryMB != nil
        }
        let pairs = hosts.reduce(0) { $0 + min($1.adb.count, $1.webRTC.count) }
        return self.limits.devices.map { $0 <= pairs } ?? false
    }
}

/// What a site can take, over all replicas; `nil`: nobody says.
public struct SiteLimits: Sendable, Equatable {
    /// Calls under way at a time that make or start devices, and as many that remove them.
    public var concurrency: Int?
    public var callsPerSecond: Double?
    /// Devices that are there or being made.
    public var devices: Int?
    /// What these have together.
    public var memoryMB: Int?

    public init(
        concurrency: Int? = nil, callsPerSecond: Double? = nil, devices: Int? = nil, memoryMB: Int? = nil
    ) {
        self.concurrency = concurrency
        self.callsPerSecond = callsPerSecond
        self.devices = devices
        self.memoryMB = memoryMB
    }
}

/// What is free at a site that is limited.
struct SiteRoom: Sendable, Equatable {
    /// `nil`: no end of it.
    var devices: Int?
    var memoryMB: Int?

    func has(memoryMB wanted: Int) -> Bool { (self.devices ?? 1) > 0 && (self.memoryMB ?? wanted) >= wanted }
}

/// What may name a site.
enum SiteName {
    static let allowed = "1 to 60 characters of a-z, 0-9, - and ."

    static func isValid(_ name: String) -> Bool {
        (1...60).contains(name.utf8.count) && name.utf8.allSatisfy(Self.mayContain)
    }

    static func mayContain(_ byte: UInt8) -> Bool {
        (97...122).contains(byte) || (48...57).contains(byte) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ".")
    }

    /// What a saga that names no site needs of whoever goes on with it: any site of the provider. No site's name has a colon.
    static func any(of kind: ProviderKind) -> String { "provider:\(kind.name)" }
}
