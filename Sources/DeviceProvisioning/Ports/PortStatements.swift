import SagaRuntime

/// The SQL that rides in the journal's flushes, on table `port`.
enum PortStatements {
    /// How long a pair that turned out to be taken by a stranger is left alone.
    static let blockedFor = "1 hour"
    /// Pairs per virtual host of an endless pool, and the first of each range (the contract's 5555 to 6554, 8080 to 9079).
    static let pairsPerVirtualHost = 1000

    /// ALLOCATE_PORTS: grants a pair to each saga of the batch, in one statement, from the pool that its argument names.
    ///
    /// Free pairs are taken in the order in which they became free; rows locked by another flush are passed over. A saga
    /// that holds a pair already comes back because a stranger sits on it: that pair is blocked, and another granted. Pairs
    /// and sagas are matched by their number within the pool, by grouping: a join of two CTEs would be a nested loop.
    ///
    /// Only hosts of this process' own: a pool has those of other replicas' engines too.
    ///
    /// Argument: `{"pool", "device", "hosts"?, "mint"?}`; `{}`: no ports needed. Output: `{"host", "adb", "webrtc"}` or `{}`.
    static func allocate(pools: [ProviderKind: PortPool]) -> DatabaseStep {
        DatabaseStep(
            name: "allocate_ports",
            ctes: """
                wanted AS (
                    SELECT a.saga_id, a.argument->>'pool' AS pool, a.argument->>'device' AS device,
                        a.argument->>'hosts' AS hosts, a.argument->>'mint' AS mint,
                        row_number() OVER (PARTITION BY a.argument->>'pool' ORDER BY a.ordinal) AS nth
                    FROM accepted a
                    WHERE a.argument ? 'pool'
                ), unusable AS (
                    UPDATE port p
                    SET saga_id = NULL, device_id = NULL, free_at = saga_now() + interval '\(Self.blockedFor)',
                        blocked_until = saga_now() + interval '\(Self.blockedFor)'
                    FROM wanted w
                    WHERE p.saga_id = w.saga_id
                    RETURNING 1
                ), demand AS (
                    -- Reads `unusable`, so that a saga has let go of its pair before it is given another.
                    SELECT w.pool, max(w.hosts)::jsonb AS hosts, count(*) + 0 * (SELECT count(*) FROM unusable) AS pairs
                    FROM wanted w GROUP BY w.pool
                ), free AS (
                    SELECT d.pool, f.host, f.adb_port,
                        row_number() OVER (PARTITION BY d.pool ORDER BY f.free_at, f.adb_port, f.host) AS nth
                    FROM demand d CROSS JOIN LATERAL (
                        SELECT p.host, p.adb_port, p.free_at
                        FROM port p
                        WHERE p.pool = d.pool AND (d.hosts IS NULL OR d.hosts ? p.host) AND p.saga_id IS NULL
                            AND p.free_at <= saga_now()
                        ORDER BY p.free_at
                        LIMIT d.pairs
                        FOR UPDATE SKIP LOCKED
                    ) f
                ), matched AS (
                    SELECT m.pool, max(m.saga_id) AS saga_id, max(m.device)::uuid AS device_id, max(m.mint) AS mint,
                        max(m.host) AS host, max(m.adb_port) AS adb_port
                    FROM (
                        SELECT w.pool, w.nth, w.saga_id, w.device, w.mint, NULL::text AS host, NULL::int AS adb_port
                        FROM wanted w
                        UNION ALL
                        SELECT f.pool, f.nth, NULL, NULL, NULL, f.host, f.adb_port FROM free f
                    ) m
                    GROUP BY m.pool, m.nth
                ), taken AS (
                    UPDATE port p
                    SET saga_id = m.saga_id, device_id = m.device_id, blocked_until = NULL
                    FROM matched m
                    WHERE p.host = m.host AND p.adb_port = m.adb_port
                    RETURNING p.saga_id, p.host, p.adb_port, p.webrtc_port
                ), minted AS (
                    INSERT INTO port (host, adb_port, webrtc_port, pool, saga_id, device_id, free_at)
                    \(Self.mint())
                ), granted AS (
                    SELECT g.saga_id,
                        format('{"host":%s,"adb":%s,"webrtc":%s}', to_json(g.host), g.adb_port, g.webrtc_port) AS output
                    FROM (SELECT * FROM taken UNION ALL SELECT * FROM minted) g
                    UNION ALL
                    SELECT a.saga_id, '{}' FROM accepted a WHERE NOT a.argument ? 'pool'
                )
                """,
            argument: { view in
                guard let request = try? DeviceRequest(decoding: view.request) else { return unreadableRequest }
                guard let pool = pools[request.provider] else { return "{}" }
                return JSONWriter.object(reserving: 96) { writer in
                    writer.member("pool", pool.name)
                    writer.member("device", request.deviceID)
                    Self.write(pool.supply, to: &writer)
                }
            },
            refusal: StepError(
                .refused, reason: DeviceFailureReason.portsExhausted, message: "no pair of ports is free"))
    }

    /// Pairs of virtual hosts for those of `matched` that an endless pool has no free pair for: the SELECT of an INSERT into `port`
    /// of (host, adb_port, webrtc_port, pool, saga_id, device_id, free_at).
    ///
    /// - Parameter further: expressions over `m` for columns after these, each with a comma before it.
    static func mint(further: String = "") -> String {
        """
        SELECT m.mint || '-' || repeat('0', 5 - length(m.host_number::text)) || m.host_number,
            5555 + m.pair % \(Self.pairsPerVirtualHost), 8080 + m.pair % \(Self.pairsPerVirtualHost),
            m.pool, m.saga_id, m.device_id, saga_now()\(further)
        FROM (
            SELECT n.*, n.pair / \(Self.pairsPerVirtualHost) + 1 AS host_number
            FROM (
                SELECT m.*, nextval('port_virtual_pair') AS pair
                FROM matched m
                WHERE m.mint IS NOT NULL AND m.host IS NULL
            ) n
        ) m
        RETURNING saga_id, host, adb_port, webrtc_port
        """
    }

    static func write(_ supply: PortPool.Supply, to writer: inout JSONWriter) {
        switch supply {
        case .endless(let prefix): writer.member("mint", prefix)
        case .hosts(let hosts): writer.member("hosts", hosts.map(\.name))
        }
    }

    /// The undo of ALLOCATE_PORTS: gives back whatever the saga holds, and nothing else.
    static func release(coolDown: Duration) -> SideEffect {
        let argument = JSONWriter.object { $0.member("cool_down_us", max(coolDown.wholeMicroseconds, 0)) }
        return SideEffect(
            name: "release_ports",
            statement: """
                UPDATE port p
                SET saga_id = NULL, device_id = NULL,
                    free_at = saga_now() + (a.argument->>'cool_down_us')::bigint * interval '1 microsecond'
                FROM accepted a
                WHERE p.saga_id = a.saga_id
                """,
            argument: { _ in argument })
    }
}

/// Not JSON, so that PostgreSQL refuses it (class 22) and the saga's step fails, alone and for good. The request was
/// validated before it was stored: only a damaged row gets here.
let unreadableRequest = "unreadable request"
