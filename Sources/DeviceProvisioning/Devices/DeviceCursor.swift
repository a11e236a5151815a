public import SagaRuntime

/// Where a page of devices ended: the next one begins after it.
public struct DeviceCursor: Sendable, Equatable {
    public struct Position: Sendable, Equatable {
        public var createdAt: Timestamp
        /// UUID text.
        public var deviceID: String

        public init(createdAt: Timestamp, deviceID: String) {
            self.createdAt = createdAt
            self.deviceID = deviceID
        }
    }

    /// `nil`: from the beginning.
    public var position: Position?

    /// After this device.
    public init(_ record: DeviceRecord) {
        self.position = Position(createdAt: record.createdAt, deviceID: record.deviceID)
    }

    /// After this position.
    public init(_ position: Position) { self.position = position }

    /// Reads `text`; empty means the beginning, `nil` what is not a cursor.
    public init?(_ text: String) {
        guard !text.isEmpty else {
            self.position = nil
            return
        }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        // What a device's record can hold: the database refuses an instant outside of its own range.
        guard parts.count == 2, let microseconds = Int64(parts[0]), microseconds >= 0,
            let deviceID = DeviceID.canonical(String(parts[1]))
        else { return nil }
        self.position = Position(createdAt: Timestamp(microseconds: microseconds), deviceID: deviceID)
    }

    public var text: String {
        self.position.map { "\($0.createdAt.microseconds).\($0.deviceID)" } ?? ""
    }
}
