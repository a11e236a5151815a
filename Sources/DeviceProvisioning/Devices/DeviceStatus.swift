/// Where a device stands. Raw values are the contract's numbers, names the contract's and the database's.
public enum DeviceStatus: Int, Sendable, CaseIterable {
    case creating = 1
    case running = 2
    case stopped = 3
    case error = 4
    /// Being undone or deleted; gone afterwards.
    case deleting = 5
    case starting = 6
    case stopping = 7

    public var name: String {
        switch self {
        case .creating: "CREATING"
        case .running: "RUNNING"
        case .stopped: "STOPPED"
        case .error: "ERROR"
        case .deleting: "DELETING"
        case .starting: "STARTING"
        case .stopping: "STOPPING"
        }
    }

    public init?(name: String) {
        guard let status = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = status
    }
}
