/// The two ports that ALLOCATE_PORTS granted a device, and the host that they are on.
public struct PortPair: Sendable, Equatable, Codable {
    /// `PortHost.name`.
    public var host: String
    public var adb: Int
    public var webRTC: Int

    public init(host: String, adb: Int, webRTC: Int) {
        self.host = host
        self.adb = adb
        self.webRTC = webRTC
    }
}
