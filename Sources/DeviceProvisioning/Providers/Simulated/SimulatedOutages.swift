import SagaRuntime
import Synchronization

/// Which simulated sites don't answer: the rows of `simulated_outage`, for drills. Looked at by whoever calls, ten times a second at
/// most.
final class SimulatedOutages: Sendable {
    private struct State {
        /// The calls that fail, by site.
        var calls: [String: Set<String>] = [:]
        var seen: BootTime?
    }

    private static let lifetime = Duration.milliseconds(100)
    private static let query = SQLStatement("simulated_outages", "SELECT site, call FROM simulated_outage")

    private let database: PostgresPool
    private let state = Mutex(State())

    init(database: PostgresPool) { self.database = database }

    func includes(_ call: SimulatedBehaviour.Call, at site: String) async throws(PostgresError) -> Bool {
        let now = BootTime.now
        let known = self.state.withLock { state -> [String: Set<String>]? in
            // Nothing is known before the first answer.
            guard let seen = state.seen else { return nil }
            guard now - seen < Self.lifetime else {
                // The others go by what is known until this one's answer is there.
                state.seen = now
                return nil
            }
            return state.calls
        }
        var calls = known ?? [:]
        if known == nil {
            for row in try await self.database.run(SQLQuery(Self.query)) {
                calls[try row.text(0), default: []].insert(try row.text(1))
            }
            self.state.withLock { [calls] in $0 = State(calls: calls, seen: now) }
        }
        return calls[site].map { $0.contains("all") || $0.contains(call.rawValue) } ?? false
    }
}
