import SagaRuntime

/// Devices of a list, newest first.
public struct DevicePage: Sendable {
    public enum Entry: Sendable, Equatable {
        case device(DeviceRecord)
        case unreadable(DeviceOutline)

        /// Where the entry stands in the list.
        public var position: DeviceCursor.Position {
            switch self {
            case .device(let record): DeviceCursor.Position(createdAt: record.createdAt, deviceID: record.deviceID)
            case .unreadable(let outline):
                DeviceCursor.Position(createdAt: outline.createdAt, deviceID: outline.deviceID)
            }
        }
    }

    public var entries: [Entry]
    /// Where to go on, where the page is shorter than was asked for and others may follow; `nil`: that was all, or the page is
    /// full.
    public var next: DeviceCursor.Position?

    /// Those that can be read.
    var records: [DeviceRecord] {
        self.entries.compactMap { if case .device(let record) = $0 { record } else { nil } }
    }
}

/// Whose devices are listed, and the statements for it: each follows an index, newest first, and looks at so many at most.
enum Owners {
    case all
    case user(String)
    /// The user's, as far as they are the tenant's.
    case tenantsUser(String, tenant: String)
    /// The tenant's, and the user's own in whatever tenant they are.
    case tenant(String, user: String)

    /// `nil`: nobody's that may be seen.
    init?(userID: String, visibility: Visibility) {
        switch visibility {
        case .all:
            self = userID.isEmpty ? .all : .user(userID)
        case .user(let user):
            guard userID.isEmpty || Visibility.isSame(userID, user) else { return nil }
            self = .user(user)
        case .tenant(let tenant, let user):
            if userID.isEmpty {
                self = .tenant(tenant, user: user)
            } else {
                self = Visibility.isSame(userID, user) ? .user(user) : .tenantsUser(userID, tenant: tenant)
            }
        }
    }

    /// $3 and $4, after the position in $1 and $2.
    func append(to parameters: inout SQLParameters) {
        switch self {
        case .all:
            break
        case .user(let user):
            parameters.append(user)
        case .tenantsUser(let user, let tenant), .tenant(let tenant, let user):
            parameters.append(user)
            parameters.append(tenant)
        }
    }

    private var name: String {
        switch self {
        case .all: "all"
        case .user: "user"
        case .tenantsUser: "tenants_user"
        case .tenant: "tenant"
        }
    }

    /// The number of the parameter after those of position and owners.
    private var next: Int {
        switch self {
        case .all: 3
        case .user: 4
        case .tenantsUser, .tenant: 5
        }
    }

    /// The conditions, each of which an index follows; together they give every device once.
    private var conditions: [String] {
        switch self {
        case .all: ["true"]
        case .user: ["c.user_id = $3"]
        case .tenantsUser: ["c.user_id = $3 AND c.tenant_id = $4"]
        case .tenant: ["c.tenant_id = $4 AND c.tenant_id <> '' AND c.user_id <> $3", "c.user_id = $3"]
        }
    }

    private func candidates(isRare: Bool, limit: String) -> String {
        let table = isRare ? "device_not_running" : "devices"
        let parts = self.conditions.map { condition in
            """
            SELECT c.created_at, c.device_id FROM \(table) c
            WHERE \(condition) AND (c.created_at, c.device_id) < ($1, $2)
            ORDER BY c.created_at DESC, c.device_id DESC \(limit)
            """
        }
        if parts.count == 1 { return parts[0] }
        return """
            SELECT v.* FROM (\(parts.map { "(" + $0 + ")" }.joined(separator: " UNION ALL "))) v
            ORDER BY v.created_at DESC, v.device_id DESC \(limit)
            """
    }

    /// Parameters after the owners': candidates, statuses (none: any), provider or NULL, records.
    func page(isRare: Bool) -> SQLStatement {
        let next = self.next
        return SQLStatement(
            "device_list_\(self.name)\(isRare ? "_rare" : "")",
            """
            SELECT \(DeviceRecord.columns)
            FROM (\(self.candidates(isRare: isRare, limit: "LIMIT $\(next)"))) n
            JOIN devices d ON d.device_id = n.device_id
            WHERE (cardinality($\(next + 1)::text[]) = 0 OR d.status = ANY ($\(next + 1)::text[])) AND ($\(next + 2)::text IS NULL OR d.provider = $\(next + 2))
            ORDER BY n.created_at DESC, n.device_id DESC
            LIMIT $\(next + 3)
            """)
    }

    /// Where a page has stopped looking; no row if it has seen all. Parameter after the owners': candidates less one.
    func lastCandidate(isRare: Bool) -> SQLStatement {
        let next = self.next
        return SQLStatement(
            "device_list_end_\(self.name)\(isRare ? "_rare" : "")",
            self.candidates(isRare: isRare, limit: "LIMIT $\(next) + 1") + " OFFSET $\(next)")
    }
}
