public import SagaRuntime

/// Keeps table `port` in step with the configured hosts: makes the rows that are missing, and removes free ones that
/// lie outside. Held pairs are left alone until they are released.
///
/// Replicas may run it at the same time. Where their configurations differ, each start brings the table to its own.
public struct PortKeeper: Sendable {
    private let pools: [PortPool]
    private let database: PostgresPool

    public init(providers: ProviderRegistry, database: PostgresPool) {
        self.init(pools: PortPool.merged(providers.sites.compactMap(\.provider.portPool)), database: database)
    }

    init(pools: [PortPool], database: PostgresPool) {
        self.pools = pools
        self.database = database
    }

    /// To be called at each start, after the migrations and before the first request.
    public func prepare() async throws(PostgresError) {
        for pool in self.pools {
            guard case .hosts(let hosts) = pool.supply else { continue }
            var parameters = SQLParameters()
            parameters.append(pool.name)
            parameters.append(array: hosts.map(\.name))
            parameters.append(array: hosts.map { Int32(clamping: $0.adb.lowerBound) })
            parameters.append(array: hosts.map { Int32(clamping: $0.webRTC.lowerBound) })
            parameters.append(array: hosts.map { Int32(clamping: min($0.adb.count, $0.webRTC.count)) })
            // A start that has nothing to change writes nothing: the database may be read-only for a while.
            guard try await self.database.run(SQLQuery(Self.differs, parameters)).single().bool(0) else { continue }
            try await self.write([SQLQuery(Self.retire, parameters), SQLQuery(Self.seed, parameters)])
        }
    }

    /// Two replicas that start together may lock each other's rows; one of them then comes again.
    private func write(_ queries: [SQLQuery]) async throws(PostgresError) {
        for _ in 0..<Self.maximumTries - 1 {
            do throws(PostgresError) {
                _ = try await self.database.transaction(queries)
                return
            } catch {
                guard error.isSerialization else { throw error }
            }
        }
        _ = try await self.database.transaction(queries)
    }
    private static let maximumTries = 5

    /// What lies outside the configured hosts and may go. Hosts that are sites of other replicas are these' to look after. A pair whose
    /// place at its site has not been taken off yet says that it is to be.
    private static let outside = """
        p.pool = $1 AND p.saga_id IS NULL AND p.reserved_site IS NULL AND (p.host = ANY ($2) OR p.host NOT IN (SELECT name FROM site)) AND NOT EXISTS (
            SELECT 1 FROM unnest($2::text[], $3::int[], $4::int[], $5::int[]) AS h(host, adb, webrtc, pairs)
            WHERE p.host = h.host AND p.adb_port BETWEEN h.adb AND h.adb + h.pairs - 1
                AND p.webrtc_port - p.adb_port = h.webrtc - h.adb)
        """

    private static let differs = SQLStatement(
        "port_differs",
        """
        SELECT EXISTS (SELECT 1 FROM port p WHERE \(Self.outside)) OR EXISTS (
            SELECT 1 FROM unnest($2::text[], $3::int[], $4::int[], $5::int[]) AS h(host, adb, webrtc, pairs)
            CROSS JOIN LATERAL generate_series(0, h.pairs - 1) AS n
            WHERE NOT EXISTS (SELECT 1 FROM port p WHERE p.host = h.host
                AND (p.adb_port = h.adb + n OR p.webrtc_port = h.webrtc + n)))
        """)

    private static let retire = SQLStatement("port_retire", "DELETE FROM port p WHERE \(Self.outside)")

    /// The nth pairs of all hosts come free at the same instant, so that devices are spread over the hosts.
    private static let seed = SQLStatement(
        "port_seed",
        """
        INSERT INTO port (host, adb_port, webrtc_port, pool, free_at)
        SELECT h.host, h.adb + n, h.webrtc + n, $1, timestamptz 'epoch' + n * interval '1 microsecond'
        FROM unnest($2::text[], $3::int[], $4::int[], $5::int[]) AS h(host, adb, webrtc, pairs)
        CROSS JOIN LATERAL generate_series(0, h.pairs - 1) AS n
        ORDER BY 1, 2
        ON CONFLICT DO NOTHING
        """)
}
