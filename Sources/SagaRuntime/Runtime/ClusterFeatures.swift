import Logging
import Synchronization

/// Something that this program knows and an older one doesn't, by the name that instances publish.
struct ClusterFeature: Hashable, Sendable, ExpressibleByStringLiteral {
    let name: String

    init(stringLiteral name: String) { self.name = name }

    /// It publishes what it knows, and looks at what others do.
    static let features: ClusterFeature = "features"
    /// Sagas name the site of their calls, and instances publish those that they serve (`Sites`).
    static let sites: ClusterFeature = "sites"

    /// It reads event rows of a format (`JournalEventCodec`).
    static func events(format: Int) -> ClusterFeature { ClusterFeature(stringLiteral: "events-\(format)") }
    /// It reads the events of commands, and compares before it ends a saga.
    static let commands: ClusterFeature = "commands"

    /// It knows that a device may be held by another saga than its creation, and drives those that delete one.
    static let deletion: ClusterFeature = "deletion"
    /// It drives sagas that start, stop and restart devices.
    static let control: ClusterFeature = "control"

    /// Everything that this program publishes. What isn't here is never on.
    static let known: [ClusterFeature] = [.features, .events(format: 2), .commands, .sites, .deletion, .control]
}

/// What all live instances of a database know (docs/architecture.md, "Two versions at a time").
///
/// Each publishes what it knows in its row of `saga_instance`. What an older program would misread is on while every instance
/// that isn't fenced publishes it: one whose lease is over may come back.
final class ClusterFeatures: Sendable {
    /// How often it looks, and how old what it has seen may be. An older view says that nothing is on.
    static let interval: Duration = .seconds(1)
    static let trustedFor: Duration = .seconds(3)

    /// What this process publishes: in a test that rolls between two programs, one of them stands for an older one.
    static let published: [String] = FaultPoint.isWanted("features.none") ? [] : ClusterFeature.known.map(\.name)

    private struct View {
        /// What all live instances publish, and what any of them does.
        var common: Set<String>
        var any: Set<String>
        var asked: BootTime
    }

    private let pool: PostgresPool
    private let logger: Logger
    private let view = Mutex<View?>(nil)

    init(pool: PostgresPool, logger: Logger) {
        self.pool = pool
        self.logger = logger
    }

    /// Whether all live instances know it, as was seen a second or so ago. Asks nobody and waits for nothing.
    func isOn(_ feature: ClusterFeature) -> Bool {
        let now = self.pool.surroundings.now
        return self.view.withLock { view in
            guard let view, now - view.asked <= Self.trustedFor else { return false }
            return view.common.contains(feature.name)
        }
    }

    /// Whether some live instance knows it, as far as is known.
    func isPublished(_ feature: ClusterFeature) -> Bool {
        self.view.withLock { $0?.any.contains(feature.name) ?? false }
    }

    func run() async {
        while !Task.isCancelled {
            do {
                try await self.look()
            } catch {
                self.logger.debug("[SAGA] can't see what other instances know: \(error)")
            }
            try? await self.pool.surroundings.sleep(for: Self.interval)
        }
    }

    private static let live = SQLStatement("instance_features", "SELECT features FROM saga_instance WHERE NOT fenced")

    func look() async throws(PostgresError) {
        let asked = self.pool.surroundings.now
        // What nobody here knows is not on, whatever others publish.
        var common = Set(Self.published)
        var any: Set<String> = []
        var isAlone = true
        for row in try await self.pool.run(SQLQuery(Self.live)) {
            let names = try row.textArray(0)
            common.formIntersection(names)
            any.formUnion(names)
            isAlone = false
        }
        let view = View(common: isAlone ? [] : common, any: any, asked: asked)
        self.view.withLock { $0 = view }
    }
}
