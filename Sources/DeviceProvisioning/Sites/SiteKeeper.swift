import Logging
public import SagaRuntime

/// Makes this process' sites known, and follows what becomes of them and of the others'.
public struct SiteKeeper: Sendable {
    private static let interval = Duration.seconds(2)

    private let providers: ProviderRegistry
    private let store: SiteStore

    public init(providers: ProviderRegistry, database: PostgresPool) {
        self.providers = providers
        self.store = SiteStore(database: database)
    }

    /// To be called at each start, after the migrations and before the first request.
    public func prepare() async throws(PostgresError) {
        self.providers.know(try await self.store.names())
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
                while !Task.isCancelled {
                    try? await self.store.register(self.providers.sites)
                    try? await self.store.collect()
                    if let room = try? await self.store.room() { self.providers.know(room: room) }
                    if let names = try? await self.store.names() { self.providers.know(names) }
                    try? await Task.sleep(for: .seconds(1))
                }
            }
        }
    }
}
