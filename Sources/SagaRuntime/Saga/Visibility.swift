/// Whose sagas somebody may see, and what sagas are about.
public enum Visibility: Sendable, Equatable {
    case all
    /// What belongs to the user.
    case user(String)
    /// What belongs to the tenant, or to the user. A tenant has a name: nothing belongs to the empty one.
    case tenant(String, user: String)

    public func includes(userID: String, tenantID: String) -> Bool {
        switch self {
        case .all: true
        case .user(let user): Self.isSame(userID, user)
        case .tenant(let tenant, let user):
            Self.isSame(userID, user) || (!tenant.isEmpty && Self.isSame(tenantID, tenant))
        }
    }

    /// Byte by byte, as the database compares. To Swift's `==` é in one scalar and é in two are equal, and so are K and
    /// the Kelvin sign; whoever gives out names may have given both.
    public static func isSame(_ name: String, _ other: String) -> Bool { name.utf8.elementsEqual(other.utf8) }

    /// As parameters of a condition: (user, tenant), both nil for everything.
    var parameters: (user: String?, tenant: String?) {
        switch self {
        case .all: (nil, nil)
        case .user(let user): (user, nil)
        case .tenant(let tenant, let user): (user, tenant.isEmpty ? nil : tenant)
        }
    }
}
