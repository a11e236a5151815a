public import SagaRuntime

/// Table `site`: the sites that any replica has ever been configured for, and which engine each name stands for.
public struct SiteStore: EngineMemory {
    private let database: PostgresPool

    public init(database: PostgresPool) { self.database = database }

    private static let differs = SQLStatement(
        "site_differs",
        """
        SELECT EXISTS (
            SELECT 1 FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) AS n(name, provider, devices, memory)
            WHERE NOT EXISTS (
                SELECT 1 FROM site s WHERE s.name = n.name AND (s.provider <> n.provider
                    OR s.devices IS NOT DISTINCT FROM n.devices AND s.memory_mb IS NOT DISTINCT FROM n.memory)))
        """)

    private static let register = SQLStatement(
        "site_register",
        """
        INSERT INTO site (name, provider, devices, memory_mb)
        SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) AS n(name, provider, devices, memory)
        ORDER BY 1
        ON CONFLICT (name) DO UPDATE
        SET devices = excluded.devices, memory_mb = excluded.memory_mb
        WHERE site.provider = excluded.provider
        """)

    private static func parameters(_ sites: [ProviderSite]) -> SQLParameters {
        var parameters = SQLParameters()
        parameters.append(array: sites.map(\.name))
        parameters.append(array: sites.map(\.provider.kind.name))
        parameters.append(array: sites.map { $0.limits.devices.map { Int32(clamping: $0) } })
        parameters.append(array: sites.map { $0.limits.memoryMB.map { Int64($0) } })
        return parameters
    }

    /// Whether a site isn't known as it is configured here. (One whose name stands for another provider is known.)
    func differs(from sites: [ProviderSite]) async throws(PostgresError) -> Bool {
        try await self.database.run(SQLQuery(Self.differs, Self.parameters(sites))).single().bool(0)
    }

    /// Makes sites known to all replicas. A name stands for one provider, the first that had it.
    ///
    /// Where nothing is new nothing is written: the database may be read-only for a while.
    func register(_ sites: [ProviderSite]) async throws(PostgresError) {
        guard try await self.differs(from: sites) else { return }
        let parameters = Self.parameters(sites)
        var pools = SQLParameters()
        pools.append(array: sites.map(\.name))
        // An engine has a host of its own in its provider's pool; what else has ports has a pool of its own.
        pools.append(array: sites.map { $0.provider.kind == .redroid ? "" : $0.provider.portPool?.name ?? "" })
        _ = try await self.database.transaction([SQLQuery(Self.register, parameters), SQLQuery(Self.count, pools)])
    }

    /// What a site holds that became limited later counts too. Its row is locked by now.
    private static let count = SQLStatement(
        "site_count",
        """
        WITH held AS (
            SELECT p.host, p.adb_port, n.name, coalesce(d.memory_mb, 0) AS memory_mb
            FROM unnest($1::text[], $2::text[]) AS n(name, pool)
            JOIN site s ON s.name = n.name AND (s.devices IS NOT NULL OR s.memory_mb IS NOT NULL)
            JOIN port p ON (p.pool = n.pool OR (n.pool = '' AND p.host = n.name))
                AND p.saga_id IS NOT NULL AND p.reserved_site IS NULL
            LEFT JOIN devices d ON d.device_id = p.device_id
        ), marked AS (
            UPDATE port p SET reserved_site = h.name, reserved_mb = h.memory_mb
            FROM held h WHERE p.host = h.host AND p.adb_port = h.adb_port AND p.saga_id IS NOT NULL
            RETURNING p.reserved_site, p.reserved_mb
        )
        UPDATE site s
        SET devices_used = s.devices_used + m.devices, memory_used_mb = s.memory_used_mb + m.memory
        FROM (SELECT reserved_site, count(*) AS devices, sum(reserved_mb) AS memory FROM marked GROUP BY 1) m
        WHERE s.name = m.reserved_site
        """)

    private static let collect = SQLStatement(
        "site_collect",
        """
        WITH gone AS (
            SELECT p.host, p.adb_port, p.reserved_site, p.reserved_mb FROM port p
            WHERE p.saga_id IS NULL AND p.reserved_site IS NOT NULL
            ORDER BY p.host, p.adb_port LIMIT 1000 FOR UPDATE SKIP LOCKED
        ), cleared AS (
            UPDATE port p SET reserved_site = NULL, reserved_mb = NULL
            FROM gone g WHERE p.host = g.host AND p.adb_port = g.adb_port
            RETURNING 1
        ), sums AS (
            SELECT reserved_site, count(*) + 0 * (SELECT count(*) FROM cleared) AS devices, sum(reserved_mb) AS memory
            FROM gone GROUP BY 1
        ), locked AS MATERIALIZED (
            SELECT s.name FROM site s WHERE s.name IN (SELECT reserved_site FROM sums) ORDER BY s.name FOR UPDATE
        )
        UPDATE site s
        SET devices_used = greatest(s.devices_used - x.devices, 0), memory_used_mb = greatest(s.memory_used_mb - x.memory, 0)
        FROM sums x JOIN locked l ON l.name = x.reserved_site
        WHERE s.name = x.reserved_site
        """)

    /// Takes off what was released: the places of pairs that nobody holds any more.
    func collect() async throws(PostgresError) { _ = try await self.database.run(SQLQuery(Self.collect)) }

    private static let roomQuery = SQLStatement(
        "site_room",
        """
        SELECT name, devices - devices_used, memory_mb - memory_used_mb FROM site
        WHERE devices IS NOT NULL OR memory_mb IS NOT NULL
        """)

    /// What is free at the sites that are limited.
    func room() async throws(PostgresError) -> [String: SiteRoom] {
        var room: [String: SiteRoom] = [:]
        for row in try await self.database.run(SQLQuery(Self.roomQuery)) {
            room[try row.text(0)] = SiteRoom(
                devices: try row.optionalInt32(1).map { Int($0) }, memoryMB: try row.optionalInt64(2).map { Int($0) })
        }
        return room
    }

    private static let all = SQLStatement("site_all", "SELECT name, provider FROM site")

    /// The names of all sites that there are or were, by provider.
    func names() async throws(PostgresError) -> [ProviderKind: Set<String>] {
        var names: [ProviderKind: Set<String>] = [:]
        for row in try await self.database.run(SQLQuery(Self.all)) {
            guard let kind = ProviderKind(name: try row.text(1)) else { continue }
            names[kind, default: []].insert(try row.text(0))
        }
        return names
    }

    private static let portHosts = SQLStatement(
        "site_port_hosts", "SELECT DISTINCT host FROM port WHERE pool = $1 AND saga_id IS NOT NULL")

    /// The hosts whose ports devices of engines have: an older program makes its engine known by nothing else.
    func portHosts() async throws(PostgresError) -> Set<String> {
        var parameters = SQLParameters()
        parameters.append(ProviderKind.redroid.name)
        var hosts: Set<String> = []
        for row in try await self.database.run(SQLQuery(Self.portHosts, parameters)) { hosts.insert(try row.text(0)) }
        return hosts
    }

    private static let engine = SQLStatement("site_engine", "SELECT engine FROM site WHERE name = $1")
    private static let remember = SQLStatement(
        "site_remember", "UPDATE site SET engine = $2 WHERE name = $1 AND engine IS NULL")

    public func remembered(_ identity: String, of site: String) async throws -> String {
        var name = SQLParameters()
        name.append(site)
        var both = name
        both.append(identity)
        if let known = try await self.database.run(SQLQuery(Self.engine, name)).first?.optionalText(0) { return known }
        _ = try await self.database.run(SQLQuery(Self.remember, both))
        // Another replica may have been quicker.
        guard let known = try await self.database.run(SQLQuery(Self.engine, name)).first?.optionalText(0) else {
            throw PostgresError(.decoding, "the site \(site) has no row")
        }
        return known
    }
}

/// Remembers which engine a site's name stands for, for all replicas.
public protocol EngineMemory: Sendable {
    /// What was remembered first; `identity` if that is now.
    func remembered(_ identity: String, of site: String) async throws -> String
}
