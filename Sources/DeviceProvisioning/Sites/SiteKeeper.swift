public import Logging
public import SagaRuntime

/// Makes this process' sites known, and follows what becomes of them and of the others'.
public struct SiteKeeper: Sendable {
    private static let interval = Duration.seconds(2)

    private let providers: ProviderRegistry
    private let store: SiteStore
    private let logger: Logger

    public init(providers: ProviderRegistry, database: PostgresPool, logger: Logger) {
        self.providers = providers
        self.store = SiteStore(database: database)
        self.logger = logger
    }

    /// To be called at each start, after the migrations and before the first request.
    public func prepare() async throws(PostgresError) {
        self.providers.know(try await self.store.names())
        self.providers.know(portHosts: try await self.store.portHosts())
        // A database that is read-only for a while keeps no start waiting: `run` goes on.
        try? await self.store.register(self.providers.sites)
    }

    /// Until cancelled.
    public func run() async {
        await withDiscardingTaskGroup { group in
            for site in self.providers.sites {
                group.addTask {
                    while !Task.isCancelled {
                        await site.provider.look()
                        try? await Task.sleep(for: Self.interval)
                    }
                }
            }
            group.addTask {
                var isRegistered = false
                var round = 0
                while !Task.isCancelled {
                    round += 1
                    do throws(PostgresError) {
                        try await self.lookAfterRows(&isRegistered, round)
                    } catch {
                        self.logger.log(.warning, cause: "sites.rows", "can't look after the sites' rows: \(error)")
                    }
                    for site in self.providers.sites {
                        guard let other = self.providers.stranger(of: site) else { continue }
                        self.logger.log(
                            .error, cause: "sites.stranger \(site.name)",
                            """
                            not served: the site's name stands for another provider (\(other.name)) in this database; \
                            give it another name
                            """, metadata: ["site": "\(site.name)"])
                    }
                    try? await Task.sleep(for: .seconds(1))
                }
            }
        }
    }

    /// - Parameter isRegistered: whether this process has made its sites known since its start. Once is enough: with other limits
    ///   in another replica's file the two would overwrite each other for good.
    private func lookAfterRows(_ isRegistered: inout Bool, _ round: Int) async throws(PostgresError) {
        // What can be read is known though nothing may be written.
        self.providers.know(try await self.store.names())
        // That looks at the whole table.
        if round % 60 == 0 { self.providers.know(portHosts: try await self.store.portHosts()) }
        self.providers.know(room: try await self.store.room())
        if !isRegistered {
            try await self.store.register(self.providers.sites)
            isRegistered = true
        } else if try await self.store.differs(from: self.providers.sites) {
            self.logger.log(
                .warning, cause: "sites.limits",
                """
                a replica that was started later has other limits (devices, memory-mb) for one of these sites, and they count; \
                give all replicas the same
                """, metadata: ["sites": "\(self.providers.sites.map(\.name).joined(separator: ", "))"])
        }
        try await self.store.collect()
    }
}
