import SagaRuntime

/// How a filter's devices are found. Some index gives candidates in the list's order, so many at most; what it doesn't know of them is
/// looked at in their rows.
struct DeviceListing {
    /// Devices that a page looks at.
    static let maximumCandidates = 4096

    private let filter: DeviceFilter
    private let owners: Owners
    private let source: Source

    /// `nil`: nobody's that may be seen.
    init?(_ filter: DeviceFilter) {
        guard let owners = Owners(userID: filter.userID, visibility: filter.visibility) else { return nil }
        self.filter = filter
        self.owners = owners
        self.source = Source(filter)
    }

    var order: DeviceOrder {
        if case .names = self.source { return .byName }
        return .newestFirst
    }

    /// The page's devices.
    func page(after position: DeviceCursor.Position?, limit: Int) -> SQLQuery? {
        guard var parameters = self.parameters(after: position) else { return nil }
        let next = parameters.count + 1
        parameters.append(Int64(Self.maximumCandidates))
        parameters.append(array: self.filter.statuses)
        parameters.append(self.filter.provider?.name)
        for text in [self.filter.batchID, self.filter.tag, self.filter.namePrefix] {
            parameters.append(text.isEmpty ? nil : text)
        }
        parameters.append(Int64(max(limit, 0)))
        let statement = SQLStatement(
            "device_list_\(self.name)",
            """
            SELECT \(DeviceRecord.columns)
            FROM (\(self.candidates(limit: "LIMIT $\(next)"))) n
            JOIN devices d ON d.device_id = n.device_id
            WHERE (cardinality($\(next + 1)::text[]) = 0 OR d.status = ANY ($\(next + 1)::text[]))
                AND ($\(next + 2)::text IS NULL OR d.provider = $\(next + 2))
                AND ($\(next + 3)::text IS NULL OR d.batch_id = $\(next + 3))
                AND ($\(next + 4)::text IS NULL OR $\(next + 4) = ANY (d.tags))
                AND ($\(next + 5)::text IS NULL OR starts_with(d.name, $\(next + 5)))
            ORDER BY \(self.inOrder("n"))
            LIMIT $\(next + 6)
            """)
        return SQLQuery(statement, parameters)
    }

    /// Where a page has stopped looking; no row if it has seen all.
    func lastCandidate(after position: DeviceCursor.Position?) -> SQLQuery? {
        guard var parameters = self.parameters(after: position) else { return nil }
        let next = parameters.count + 1
        parameters.append(Int64(Self.maximumCandidates - 1))
        let statement = SQLStatement(
            "device_list_end_\(self.name)", self.candidates(limit: "LIMIT $\(next) + 1") + " OFFSET $\(next)")
        return SQLQuery(statement, parameters)
    }

    /// The row of `lastCandidate`.
    func position(_ row: SQLRow) throws(PostgresError) -> DeviceCursor.Position {
        let key: DeviceCursor.Key
        switch self.order {
        case .newestFirst: key = .createdAt(try row.timestamp(0))
        case .byName: key = .name(try row.text(0))
        }
        return DeviceCursor.Position(key, deviceID: try row.uuid(1))
    }

    // MARK: SQL

    private var name: String { "\(self.owners.name)_\(self.source.name)" }

    /// The position in $1 and $2, then the owners', then the source's; `nil`: the position is not of this order.
    private func parameters(after position: DeviceCursor.Position?) -> SQLParameters? {
        var parameters = SQLParameters()
        switch (position?.key, self.source) {
        case (.none, .names(let prefix)): parameters.append(prefix)
        case (.name(let name), .names): parameters.append(name)
        case (_, .names), (.name, _): return nil
        case (.none, _): parameters.append(Timestamp.infinity)
        case (.createdAt(let instant), _): parameters.append(instant)
        }
        let first =
            self.order == .byName ? "00000000-0000-0000-0000-000000000000" : "ffffffff-ffff-ffff-ffff-ffffffffffff"
        parameters.append(uuid: position?.deviceID ?? first)
        self.owners.append(to: &parameters)
        switch self.source {
        case .all, .notRunning: break
        case .label(let label): parameters.append(label)
        // No name has more characters, and there is none greater than these.
        case .names(let prefix): parameters.append(prefix + String(repeating: "\u{10FFFF}", count: 100))
        }
        return parameters
    }

    private func inOrder(_ table: String) -> String {
        self.order == .byName ? "\(table).key, \(table).device_id" : "\(table).key DESC, \(table).device_id DESC"
    }

    private func candidates(limit: String) -> String {
        let (key, isBeyond, direction) =
            self.order == .byName ? (#"c.name COLLATE "C""#, ">", "") : ("c.created_at", "<", " DESC")
        let parts = self.owners.conditions.map { condition in
            """
            SELECT \(key) AS key, c.device_id FROM \(self.source.table) c
            WHERE \(condition) AND \(self.source.condition(parameter: self.owners.next))
                AND (\(key), c.device_id) \(isBeyond) ($1, $2)
            ORDER BY \(key)\(direction), c.device_id\(direction) \(limit)
            """
        }
        if parts.count == 1 { return parts[0] }
        return """
            SELECT v.* FROM (\(parts.map { "(" + $0 + ")" }.joined(separator: " UNION ALL "))) v
            ORDER BY \(self.inOrder("v")) \(limit)
            """
    }
}

/// What gives candidates in the list's order. All of them have `device_id`, `user_id` and `tenant_id`.
private enum Source {
    case all
    case notRunning
    /// Of a batch or a tag.
    case label(String)
    case names(prefix: String)

    /// The narrowest.
    init(_ filter: DeviceFilter) {
        if !filter.batchID.isEmpty {
            self = .label("batch=" + filter.batchID)
        } else if !filter.tag.isEmpty {
            self = .label("tag=" + filter.tag)
        } else if !filter.namePrefix.isEmpty {
            self = .names(prefix: filter.namePrefix)
        } else if !filter.statuses.isEmpty, !filter.statuses.contains(DeviceStatus.running.name) {
            self = .notRunning
        } else {
            self = .all
        }
    }

    var name: String {
        switch self {
        case .all: "all"
        case .notRunning: "rare"
        case .label: "label"
        case .names: "names"
        }
    }

    var table: String {
        switch self {
        case .all, .names: "devices"
        case .notRunning: "device_not_running"
        case .label: "device_label"
        }
    }

    func condition(parameter: Int) -> String {
        switch self {
        case .all, .notRunning: "true"
        case .label: "c.label = $\(parameter)"
        case .names: #"c.name COLLATE "C" <= $\#(parameter)"#
        }
    }
}

/// Whose devices are listed.
private enum Owners {
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

    var name: String {
        switch self {
        case .all: "all"
        case .user: "user"
        case .tenantsUser: "tenants_user"
        case .tenant: "tenant"
        }
    }

    /// The number of the parameter after those of position and owners.
    var next: Int {
        switch self {
        case .all: 3
        case .user: 4
        case .tenantsUser, .tenant: 5
        }
    }

    /// The conditions, each of which an index follows; together they give every device once.
    var conditions: [String] {
        switch self {
        case .all: ["true"]
        case .user: ["c.user_id = $3"]
        case .tenantsUser: ["c.user_id = $3 AND c.tenant_id = $4"]
        case .tenant: ["c.tenant_id = $4 AND c.tenant_id <> '' AND c.user_id <> $3", "c.user_id = $3"]
        }
    }
}
