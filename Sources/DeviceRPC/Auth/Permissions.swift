/// What a caller may do; `.` and `:` in a name are the same.
public struct Permissions: OptionSet, Sendable, Hashable {
    public let rawValue: UInt8

    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let deviceCreate = Permissions(rawValue: 1)
    public static let deviceRead = Permissions(rawValue: 2)
    public static let deviceDelete = Permissions(rawValue: 4)
    public static let sagaRead = Permissions(rawValue: 8)
    public static let sagaAdmin = Permissions(rawValue: 16)
    public static let deviceControl = Permissions(rawValue: 32)

    public static let all: Permissions = [
        .deviceCreate, .deviceRead, .deviceDelete, .deviceControl, .sagaRead, .sagaAdmin,
    ]

    private static let names: [(name: String, permission: Permissions)] = [
        ("device.create", .deviceCreate), ("device.read", .deviceRead), ("device.delete", .deviceDelete),
        ("device.control", .deviceControl),
        ("saga.read", .sagaRead), ("saga.admin", .sagaAdmin),
    ]

    public static let allNames = Permissions.names.map(\.name)

    /// One permission by its name; nil for a name that is not of this service.
    public init?(name: some StringProtocol) {
        let name = String(name.map { $0 == ":" ? "." : $0 })
        guard let known = Self.names.first(where: { $0.name == name }) else { return nil }
        self = known.permission
    }

    public var list: [String] { Self.names.filter { self.contains($0.permission) }.map(\.name) }

    /// Who administers sagas may read them.
    var withImplied: Permissions { self.contains(.sagaAdmin) ? self.union(.sagaRead) : self }
}
