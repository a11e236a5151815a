/// A host whose ports the port pool hands out in pairs.
public struct PortHost: Sendable, Equatable, Codable {
    /// Unique over all providers; the key of the host's rows in table `port`.
    public var name: String
    /// Inclusive.
    public var adb: ClosedRange<Int>
    /// Inclusive.
    public var webRTC: ClosedRange<Int>

    public init(name: String, adb: ClosedRange<Int>, webRTC: ClosedRange<Int>) {
        self.name = name
        self.adb = adb
        self.webRTC = webRTC
    }
}
