import Synchronization

/// What every instance can call (docs/sites.md): what this one tells the others, and what it has heard of them.
///
/// A site is what a call needs to be there: a Docker engine, a cloud account in a region. The engine knows them by name only.
final class Sites: Sendable {
    /// What the live instances serve, as of the last look.
    private struct View {
        var served: Set<String> = []
        /// The live instances that serve each, in rising order.
        var instances: [String: [Int64]] = [:]
        /// This one.
        var own: Int64 = 0
        /// All of them publish what they serve.
        var isPublishedByAll = false
    }

    private let pool: PostgresPool
    private let local: @Sendable () -> Set<String>
    private let view = Mutex(View())

    init(pool: PostgresPool, local: @escaping @Sendable () -> Set<String>) {
        self.pool = pool
        self.local = local
    }

    /// What this process serves, now.
    var served: [String] { self.local().sorted() }

    /// Whether this process serves a site, now.
    func isServedHere(_ site: String) -> Bool { self.local().contains(site) }

    /// What some live instance serves, this one or another.
    var servedByAny: [String] { self.view.withLock { $0.served }.union(self.local()).sorted() }

    /// Whether some live instance serves a site.
    func isServed(_ site: String) -> Bool {
        self.view.withLock { $0.served.contains(site) } || self.local().contains(site)
    }

    /// Whether all live instances know what sites are.
    var isKnownByAll: Bool { self.view.withLock { $0.isPublishedByAll } }

    private static let publish = SQLStatement(
        "sites_publish",
        "UPDATE saga_instance SET sites = $2 WHERE instance_id = $1 AND NOT fenced AND sites IS DISTINCT FROM $2")
    private static let look = SQLStatement(
        "sites_look", "SELECT instance_id, coalesce(sites, '{}'), sites IS NOT NULL FROM saga_instance WHERE NOT fenced"
    )

    /// Tells what this instance serves, and looks at what the others do.
    ///
    /// - Parameter isStillBusy: of an instance that is about to end: at which sites it has calls under way. The others' shares are
    ///   theirs already.
    func refresh(instance: Int64, isStillBusy: ((String) -> Bool)? = nil) async throws(PostgresError) {
        var parameters = SQLParameters()
        parameters.append(instance)
        parameters.append(array: self.served.filter { isStillBusy?($0) ?? true })
        _ = try await self.pool.run([SQLQuery(Self.publish, parameters)])
        var view = View(own: instance, isPublishedByAll: true)
        for row in try await self.pool.run(SQLQuery(Self.look)) {
            let sites = try row.textArray(1)
            view.served.formUnion(sites)
            for site in sites { view.instances[site, default: []].append(try row.int64(0)) }
            if try !row.bool(2) { view.isPublishedByAll = false }
        }
        for site in view.instances.keys { view.instances[site]?.sort() }
        self.view.withLock { [view] in $0 = view }
    }

    /// This instance's share of what a site can take: all that serve it have the same, and of what is left over from whole
    /// numbers the first ones have one more each.
    func share(of limits: CallLimits, at site: String) -> CallLimits {
        let place = self.view.withLock { view -> (count: Int, rank: Int)? in
            if view.own == 0 { return nil }
            let instances = view.instances[site] ?? []
            guard let rank = instances.firstIndex(of: view.own) else { return (instances.count + 1, instances.count) }
            return (instances.count, rank)
        }
        guard let (count, rank) = place else {
            // Nobody has been seen yet: the others may have all of it.
            return CallLimits(concurrency: limits.concurrency.map { _ in 0 }, callsPerSecond: limits.callsPerSecond)
        }
        return CallLimits(
            concurrency: limits.concurrency.map { $0 / count + (rank < $0 % count ? 1 : 0) },
            callsPerSecond: limits.callsPerSecond.map { $0 / Double(count) })
    }

    /// Counts the sagas on some leaves that are awake and that no live instance can go on with.
    static func unserved(_ group: SagaLeafGroup) -> String {
        "SELECT "
            + group.leaves.map { leaf in
                """
                (SELECT count(*) FROM \(leaf.state) s
                WHERE s.status IN ('RUNNING', 'COMPENSATING') AND s.owner >= 0 AND s.site IS NOT NULL
                    AND NOT EXISTS (SELECT 1 FROM saga_instance o WHERE NOT o.fenced AND s.site = ANY (o.sites)))
                """
            }.joined(separator: " + ")
    }
}
