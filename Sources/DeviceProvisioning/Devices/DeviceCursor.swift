public import SagaRuntime

/// Where a page of devices ended: the next one begins after it.
public struct DeviceCursor: Sendable, Equatable {
    /// What a list is in order of, before the device's id.
    public enum Key: Sendable, Equatable {
        case createdAt(Timestamp)
        case name(String)
    }

    public struct Position: Sendable, Equatable {
        public var key: Key
        /// UUID text.
        public var deviceID: String

        public init(_ key: Key, deviceID: String) {
            self.key = key
            self.deviceID = deviceID
        }
    }

    /// `nil`: from the beginning.
    public var position: Position?

    /// After this position.
    public init(_ position: Position) { self.position = position }

    /// Reads `text`; empty means the beginning, `nil` what is not a cursor.
    public init?(_ text: String) {
        guard !text.isEmpty else {
            self.position = nil
            return
        }
        let parts = text.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count >= 2, let deviceID = DeviceID.canonical(String(parts[1])) else { return nil }
        if parts.count == 3 {
            guard parts[0] == "name" else { return nil }
            self.position = Position(.name(String(parts[2])), deviceID: deviceID)
        } else {
            // What a device's record can hold: the database refuses an instant outside of its own range.
            guard let microseconds = Int64(parts[0]), microseconds >= 0 else { return nil }
            self.position = Position(.createdAt(Timestamp(microseconds: microseconds)), deviceID: deviceID)
        }
    }

    public var text: String {
        guard let position = self.position else { return "" }
        switch position.key {
        case .createdAt(let instant): return "\(instant.microseconds).\(position.deviceID)"
        case .name(let name): return "name.\(position.deviceID).\(name)"
        }
    }
}
