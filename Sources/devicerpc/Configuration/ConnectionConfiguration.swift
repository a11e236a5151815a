import RPCTransport

/// How connections of clients are kept, and what calls on them may be like.
struct ConnectionConfiguration: Sendable {
    var maximumHeaderBytes: Int
    /// `nil` for none, as with all that is optional here.
    var maximumUnaryTimeout: Duration?
    var compressFromBytes: Int?
    var keepaliveInterval: Duration
    var keepaliveTimeout: Duration
    var minimumPingInterval: Duration
    var permitsPingsWithoutCalls: Bool
    var maximumIdle: Duration?
    var maximumAge: Duration?
    var maximumAgeGrace: Duration?

    init(_ reader: SettingsReader) {
        func optional(_ setting: Setting<Duration>) -> Duration? {
            let value = reader.read(setting)
            return value == .zero ? nil : value
        }
        self.maximumHeaderBytes = reader.read(Settings.maximumHeaderBytes)
        self.maximumUnaryTimeout = optional(Settings.maximumUnaryTimeout)
        let bytes = reader.read(Settings.compressFromBytes)
        self.compressFromBytes = bytes == 0 ? nil : bytes
        self.keepaliveInterval = reader.read(Settings.keepaliveInterval)
        self.keepaliveTimeout = reader.read(Settings.keepaliveTimeout)
        self.minimumPingInterval = reader.read(Settings.minimumPingInterval)
        self.permitsPingsWithoutCalls = reader.read(Settings.pingsWithoutCalls)
        self.maximumIdle = optional(Settings.maximumConnectionIdle)
        self.maximumAge = optional(Settings.maximumConnectionAge)
        self.maximumAgeGrace = optional(Settings.maximumConnectionAgeGrace)
    }

    func apply(to rpc: inout RPCServerConfiguration) {
        rpc.maximumHeaderListBytes = self.maximumHeaderBytes
        rpc.maximumUnaryTimeout = self.maximumUnaryTimeout
        rpc.compressedResponseBytes = self.compressFromBytes
        rpc.keepaliveInterval = self.keepaliveInterval
        rpc.keepaliveTimeout = self.keepaliveTimeout
        rpc.minimumPingInterval = self.minimumPingInterval
        rpc.permitsPingsWithoutCalls = self.permitsPingsWithoutCalls
        rpc.maximumConnectionIdle = self.maximumIdle
        rpc.maximumConnectionAge = self.maximumAge
        rpc.maximumConnectionAgeGrace = self.maximumAgeGrace
    }
}
