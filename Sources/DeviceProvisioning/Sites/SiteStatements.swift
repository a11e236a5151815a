import SagaRuntime

/// The SQL that rides in the journal's flushes and chooses sites, on tables `site` and `port`.
enum SiteStatements {
    /// How many sites a saga may name, the best first.
    static let maximumCandidates = 3

    /// ALLOCATE_PORTS from version 2 on: grants each saga of the batch a place at the first of its sites that has room, with a pair
    /// of ports, if the site has ports.
    ///
    /// A site that is limited has its row locked, in the order of names, and what is granted is added to it; the row is touched
    /// nowhere else in a flush, so that no two flushes wait for each other in a circle. (What is released is taken off later:
    /// `SiteStore.collect`.) The first choices of all sagas are looked at first, in their order, then the second ones of those that
    /// are left. A saga that comes back because a stranger sits on its pair stays at its site, whatever room there is.
    ///
    /// Pairs are taken as in `PortStatements.allocate`; a pair whose place has not been taken off yet waits.
    ///
    /// - Parameter choices: how many sites a saga can name here, 1 to `maximumCandidates`: each costs every creation time.
    ///
    /// Argument: `{"device", "memory", "stays", "sites": [{"site", "pool"?, "hosts"?, "mint"?}]}`. Output: `{"site", "host", "adb",
    /// "webrtc"}`, or `{"site"}` where there are no ports.
    static func allocate(
        choices: Int = Self.maximumCandidates,
        refusal: @escaping @Sendable (DeviceRequest) -> StepError = { _ in Self.noPorts },
        places: @escaping @Sendable (SagaView, DeviceRequest) -> [ProviderSite]
    ) -> DatabaseStep {
        let choices = min(max(choices, 1), Self.maximumCandidates)
        var step = DatabaseStep(
            // One name stands for one text.
            name: "allocate_site_\(choices)", ctes: Self.ctes(choices: choices),
            argument: { view in
                guard let request = try? DeviceRequest(decoding: view.request) else { return unreadableRequest }
                return JSONWriter.object(reserving: 192) { writer in
                    writer.member("device", request.deviceID)
                    writer.member("memory", min(max(request.spec.memoryMB, 0), Int(Int32.max)))
                    writer.member("stays", SiteOutput.site(view.outputs) != nil)
                    writer.key("sites")
                    writer.array { writer in
                        for site in places(view, request).prefix(choices) {
                            writer.object { writer in
                                writer.member("site", site.name)
                                guard let pool = site.provider.portPool else { return }
                                writer.member("pool", pool.name)
                                PortStatements.write(pool.supply, to: &writer)
                            }
                        }
                    }
                }
            },
            refusal: Self.noPorts, choosesSite: true)
        step.refusalOf = { view in
            (try? DeviceRequest(decoding: view.request)).map(refusal) ?? Self.noPorts
        }
        return step
    }

    static let noPorts = StepError(
        .refused, reason: DeviceFailureReason.portsExhausted, message: "no pair of ports is free")
    static let noRoom = StepError(
        .refused, reason: DeviceFailureReason.capacityExhausted, message: "no site has room for the device")
    static let noSite = StepError(
        .unavailable, reason: DeviceFailureReason.providerUnavailable, message: "no site of the provider is served here"
    )

    private static func ctes(choices: Int) -> String {
        """
        wanted AS (
            SELECT a.saga_id, a.ordinal, a.argument->>'device' AS device, (a.argument->>'memory')::int AS memory,
                (a.argument->>'stays')::bool AS stays, a.argument->'sites' AS sites
            FROM accepted a
        ), choice AS (
            SELECT w.saga_id, w.ordinal, w.device, w.memory, w.stays, c.rank, c.value->>'site' AS site,
                c.value->>'pool' AS pool, c.value->'hosts' AS hosts, c.value->>'mint' AS mint
            FROM wanted w CROSS JOIN LATERAL jsonb_array_elements(w.sites) WITH ORDINALITY AS c(value, rank)
        ), unusable AS (
            UPDATE port p
            SET saga_id = NULL, device_id = NULL, free_at = saga_now() + interval '\(PortStatements.blockedFor)',
                blocked_until = saga_now() + interval '\(PortStatements.blockedFor)'
            FROM wanted w
            WHERE p.saga_id = w.saga_id
            RETURNING 1
        ), asked AS (
            -- Reads `unusable`, so that a saga has let go of its pair before it is given another.
            SELECT c.site, max(c.pool) AS pool, max(c.hosts::text)::jsonb AS hosts, max(c.mint) AS mint,
                count(*) + 0 * (SELECT count(*) FROM unusable) AS sagas
            FROM choice c GROUP BY c.site
        ), room AS MATERIALIZED (
            SELECT s.name AS site, s.devices - s.devices_used AS devices, s.memory_mb - s.memory_used_mb AS memory
            FROM site s
            WHERE s.name IN (SELECT site FROM asked) AND (s.devices IS NOT NULL OR s.memory_mb IS NOT NULL)
            ORDER BY s.name
            FOR UPDATE
        ), free AS (
            SELECT d.site, f.host, f.adb_port,
                row_number() OVER (PARTITION BY d.site ORDER BY f.free_at, f.adb_port, f.host) AS nth
            FROM asked d CROSS JOIN LATERAL (
                SELECT p.host, p.adb_port, p.free_at
                FROM port p
                WHERE p.pool = d.pool AND (d.hosts IS NULL OR d.hosts ? p.host) AND p.saga_id IS NULL
                    AND p.reserved_site IS NULL AND p.free_at <= saga_now()
                ORDER BY p.free_at
                LIMIT d.sagas
                FOR UPDATE SKIP LOCKED
            ) f
        ), supply AS (
            SELECT d.site, CASE WHEN d.pool IS NOT NULL AND d.mint IS NULL THEN coalesce(max(f.nth), 0) END AS pairs,
                max(r.devices) AS devices, max(r.memory) AS memory, bool_or(r.site IS NOT NULL) AS is_limited
            FROM asked d LEFT JOIN room r ON r.site = d.site LEFT JOIN free f ON f.site = d.site
            GROUP BY d.site, d.pool, d.mint
        ), \(Self.rounds(choices)), placed AS (
            SELECT p.*, row_number() OVER (PARTITION BY p.site ORDER BY p.ordinal) AS nth FROM placed_\(choices) p
        ), reserved AS (
            UPDATE site s
            SET devices_used = s.devices_used + p.devices, memory_used_mb = s.memory_used_mb + p.memory
            FROM (
                SELECT site, count(*) AS devices, sum(memory) AS memory FROM placed WHERE is_limited AND pool IS NOT NULL
                GROUP BY site
            ) p
            WHERE s.name = p.site
            RETURNING 1
        ), matched AS (
            SELECT m.site, max(m.pool) AS pool, max(m.saga_id) AS saga_id, max(m.device)::uuid AS device_id,
                max(m.mint) AS mint, max(m.reserved) AS reserved, max(m.host) AS host, max(m.adb_port) AS adb_port
            FROM (
                SELECT p.site, p.nth, p.pool, p.saga_id, p.device, p.mint,
                    CASE WHEN p.is_limited THEN p.memory + 0 * (SELECT count(*) FROM reserved) END AS reserved,
                    NULL::text AS host, NULL::int AS adb_port
                FROM placed p
                WHERE p.pool IS NOT NULL
                UNION ALL
                SELECT f.site, f.nth, NULL, NULL, NULL, NULL, NULL, f.host, f.adb_port FROM free f
            ) m
            GROUP BY m.site, m.nth
            HAVING max(m.saga_id) IS NOT NULL
        ), taken AS (
            UPDATE port p
            SET saga_id = m.saga_id, device_id = m.device_id, blocked_until = NULL, reserved_mb = m.reserved,
                reserved_site = CASE WHEN m.reserved IS NOT NULL THEN m.site END
            FROM matched m
            WHERE p.host = m.host AND p.adb_port = m.adb_port
            RETURNING p.saga_id, p.host, p.adb_port, p.webrtc_port
        ), minted AS (
            INSERT INTO port (
                host, adb_port, webrtc_port, pool, saga_id, device_id, free_at, reserved_mb, reserved_site)
            \(PortStatements.mint(further: ", m.reserved, CASE WHEN m.reserved IS NOT NULL THEN m.site END"))
        ), granted AS (
            SELECT g.saga_id, format('{"site":%s,"host":%s,"adb":%s,"webrtc":%s}', to_json(max(g.site)),
                to_json(max(g.host)), max(g.adb_port), max(g.webrtc_port)) AS output
            FROM (
                SELECT *, NULL AS site FROM taken
                UNION ALL
                SELECT *, NULL FROM minted
                UNION ALL
                SELECT p.saga_id, NULL, NULL, NULL, p.site FROM placed p
            ) g
            GROUP BY g.saga_id
            HAVING max(g.host) IS NOT NULL
            UNION ALL
            SELECT p.saga_id, format('{"site":%s}', to_json(p.site)) FROM placed p WHERE p.pool IS NULL
        )
        """
    }

    /// One for each choice: who fits beside those that were placed before. The smallest are looked at first, so that one that doesn't
    /// fit takes no room from those that do.
    private static func rounds(_ choices: Int) -> String {
        var ctes: [String] = []
        for rank in 1...choices {
            let isFirst = rank == 1
            ctes.append(
                """
                tried_\(rank) AS (
                    SELECT c.*, row_number() OVER w AS pairs, sum((NOT c.stays)::int) OVER w AS devices,
                        sum(CASE WHEN c.stays THEN 0 ELSE c.memory END) OVER w AS memory_sum
                    FROM choice c
                    WHERE c.rank = \(rank)\(isFirst ? "" : " AND c.saga_id NOT IN (SELECT saga_id FROM placed_\(rank - 1))")
                    WINDOW w AS (PARTITION BY c.site ORDER BY CASE WHEN c.stays THEN 0 ELSE c.memory END, c.ordinal)
                ), placed_\(rank) AS (
                    \(isFirst ? "" : "SELECT * FROM placed_\(rank - 1) UNION ALL")
                    SELECT t.saga_id, t.ordinal, t.site, t.device, t.memory, t.stays, t.pool, t.mint, s.is_limited
                    FROM tried_\(rank) t JOIN supply s ON s.site = t.site\(isFirst ? "" : """

                        LEFT JOIN (
                            SELECT site, count(*) AS pairs, sum((NOT stays)::int) AS devices,
                                sum(CASE WHEN stays THEN 0 ELSE memory END) AS memory
                            FROM placed_\(rank - 1) GROUP BY site
                        ) u ON u.site = t.site
                    """)
                    WHERE (s.pairs IS NULL OR t.pairs\(isFirst ? "" : " + coalesce(u.pairs, 0)") <= s.pairs)
                        AND (t.stays OR s.devices IS NULL OR t.devices\(isFirst ? "" : " + coalesce(u.devices, 0)") <= s.devices)
                        AND (t.stays OR s.memory IS NULL OR t.memory_sum\(isFirst ? "" : " + coalesce(u.memory, 0)") <= s.memory)
                )
                """)
        }
        return ctes.joined(separator: ", ")
    }
}
