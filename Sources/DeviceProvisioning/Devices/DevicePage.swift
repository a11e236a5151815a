import SagaRuntime

/// Devices of a list, in its order.
public struct DevicePage: Sendable {
    public enum Entry: Sendable, Equatable {
        case device(DeviceRecord)
        case unreadable(DeviceOutline)

        init(_ row: SQLRow) throws(PostgresError) {
            do throws(PostgresError) {
                self = .device(try DeviceRecord(row))
            } catch {
                // One that can't be read keeps nobody from the others.
                self = .unreadable(try DeviceRecord.outline(row, error))
            }
        }
    }

    public var entries: [Entry] = []
    /// Where to go on, where the page is shorter than was asked for and others may follow; `nil`: that was all, or the page is
    /// full.
    public var next: DeviceCursor.Position?
    var order = DeviceOrder.newestFirst

    /// Where an entry stands in the list.
    public func position(of entry: Entry) -> DeviceCursor.Position {
        switch (entry, self.order) {
        case (.device(let record), .newestFirst):
            DeviceCursor.Position(.createdAt(record.createdAt), deviceID: record.deviceID)
        case (.device(let record), .byName): DeviceCursor.Position(.name(record.name), deviceID: record.deviceID)
        case (.unreadable(let outline), .newestFirst):
            DeviceCursor.Position(.createdAt(outline.createdAt), deviceID: outline.deviceID)
        case (.unreadable(let outline), .byName):
            DeviceCursor.Position(.name(outline.name), deviceID: outline.deviceID)
        }
    }

    /// Those that can be read.
    var records: [DeviceRecord] {
        self.entries.compactMap { if case .device(let record) = $0 { record } else { nil } }
    }
}

enum DeviceOrder: Sendable {
    case newestFirst
    /// By the bytes of the name.
    case byName
}
