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
