import Logging
import Synchronization

/// Carries "this saga has news" between replicas, for watchers of sagas that another replica drives.
///
/// One coalesced NOTIFY per replica every few milliseconds, off the write path, wakes the others early. What guarantees is the poll:
/// at most every 500 ms, over the distinct sagas watched from afar.
final class EventRelay: Sendable {
    struct Configuration: Sendable {
        var connection: PostgresConfiguration
        var notifyInterval: Duration = .milliseconds(5)
        var pollInterval: Duration = .milliseconds(500)

        /// Behind a transaction pooler LISTEN does not work: poll only.
        var usesNotifications: Bool { !self.connection.isTransactionPooled }
    }

    private static let channel = "saga_event"
    /// A payload is at most 8,000 bytes (libpq, NOTIFY); an id is 29 and a comma.
    private static let idsPerPayload = 250

    private let configuration: Configuration
    private let surroundings: Surroundings
    private let pool: PostgresPool
    private let days: SagaDays
    private let statements = LeafStatements()
    private let feed: EventFeed
    private let reader: SagaReader
    private let isHeld: @Sendable (SagaID) -> Bool
    private let hasPeers: @Sendable () -> Bool
    private let logger: Logger
    private let pending = Mutex<Set<SagaID>>([])
    /// There is something pending.
    private let news = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
    /// The newest sequence that the feed was told of, for sagas watched from afar.
    private let known = Mutex<[SagaID: Int]>([:])

    init(
        configuration: Configuration, pool: PostgresPool, days: SagaDays, feed: EventFeed, reader: SagaReader,
        isHeld: @escaping @Sendable (SagaID) -> Bool, hasPeers: @escaping @Sendable () -> Bool, logger: Logger
    ) {
        self.configuration = configuration
        self.surroundings = configuration.connection.surroundings
        self.pool = pool
        self.days = days
        self.feed = feed
        self.reader = reader
        self.isHeld = isHeld
        self.hasPeers = hasPeers
        self.logger = logger
    }

    /// Tells the other replicas, soon. Without any, does nothing.
    func announce(_ id: SagaID) {
        guard self.configuration.usesNotifications, self.hasPeers() else { return }
        let isFirst = self.pending.withLock { pending in
            defer { pending.insert(id) }
            return pending.isEmpty
        }
        if isFirst { self.news.continuation.yield() }
    }

    func run() async {
        await withDiscardingTaskGroup { group in
            group.addTask { await self.poll() }
            if self.configuration.usesNotifications {
                group.addTask { await self.notify() }
                group.addTask { await self.listen() }
            }
        }
    }

    private static let notifyStatement = SQLStatement(
        "saga_notify", "SELECT count(pg_notify('saga_event', p)) FROM unnest($1::text[]) AS p")

    private func notify() async {
        for await _ in self.news.stream {
            // What comes within these milliseconds shares the notification.
            try? await self.surroundings.sleep(for: self.configuration.notifyInterval)
            let ids = self.pending.withLock { pending in
                defer { pending = [] }
                return Array(pending)
            }
            if !ids.isEmpty {
                var payloads: [String] = []
                var rest = ids[...]
                while !rest.isEmpty {
                    payloads.append(rest.prefix(Self.idsPerPayload).map(\.rawValue).joined(separator: ","))
                    rest = rest.dropFirst(Self.idsPerPayload)
                }
                var parameters = SQLParameters()
                parameters.append(array: payloads)
                // A lost notification is what the poll is for.
                _ = try? await self.pool.run([SQLQuery(Self.notifyStatement, parameters)])
            }
        }
    }

    private func listen() async {
        while !Task.isCancelled {
            do {
                let connection = try await PostgresConnection.connect(self.configuration.connection)
                for try await payload in try await connection.notifications(channel: Self.channel) {
                    let ids = payload.split(separator: ",").compactMap { SagaID(String($0)) }
                    await self.refresh(ids.filter { self.feed.isWatched($0) && !self.isHeld($0) })
                }
            } catch {
                self.logger.debug("[SAGA] LISTEN ended: \(error)")
            }
            // Whatever was said meanwhile is lost.
            await self.refresh(self.watchedFromAfar)
            try? await self.surroundings.sleep(for: .milliseconds(500))
        }
    }

    private static func newest(_ leaf: SagaLeaf) -> String {
        """
        SELECT s.saga_id, s.last_sequence FROM unnest($1::text[]) AS i(saga_id)
        JOIN \(leaf.state) s ON s.saga_id = i.saga_id
        """
    }

    private func newest(_ ids: [SagaID]) async throws(PostgresError) -> [SQLRows] {
        try await self.days.reading(ids, of: \.self) { parts throws(PostgresError) in
            try await self.pool.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(array: part.elements.map(\.rawValue))
                    return SQLQuery(self.statements.statement("saga_newest", on: part.leaf, Self.newest), parameters)
                })
        }
    }

    private var watchedFromAfar: [SagaID] { self.feed.watched.filter { !self.isHeld($0) } }

    private func poll() async {
        while !Task.isCancelled {
            try? await self.surroundings.sleep(for: self.configuration.pollInterval)
            let watched = self.watchedFromAfar
            let isWatched = Set(watched)
            self.known.withLock { known in known = known.filter { isWatched.contains($0.key) } }
            if watched.isEmpty { continue }
            guard let rows = try? await self.newest(watched) else { continue }
            var changed: [SagaID] = []
            for row in rows.joined() {
                guard let text = try? row.text(0), let id = SagaID(text), let newest = try? row.int32(1) else {
                    continue
                }
                if self.known.withLock({ ($0[id] ?? 0) < Int(newest) }) { changed.append(id) }
            }
            await self.refresh(changed)
        }
    }

    /// One read per saga, however many watch it.
    private func refresh(_ ids: [SagaID]) async {
        guard !ids.isEmpty, let histories = try? await self.reader.decodable(ids) else { return }
        for (id, result) in histories {
            guard case .success(let history) = result else {
                // Its watchers learn it from their own reading, and nobody else suffers from it.
                self.feed.publishGap(id)
                continue
            }
            let told = self.known.withLock { known in
                defer { known[id] = max(known[id] ?? 0, history.events.count) }
                return known[id] ?? 0
            }
            let news = Array(history.events.dropFirst(told))
            self.feed.publish(id, news)
        }
    }
}
