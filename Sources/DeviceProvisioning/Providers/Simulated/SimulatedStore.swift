import SagaRuntime
import Synchronization

/// The simulated provider's devices: the world outside, as table `simulated_device` of the same database.
///
/// Calls that come together share a transaction, one statement per kind. Each transaction has a deadline by the database's own
/// clock, which the database itself keeps: a request that was held up on its way, or waits for a lock, takes effect until
/// then or not at all. So the provider can promise how long after a call was given up its effect may still appear.
final class SimulatedStore: Sendable {
    struct Creation: Sendable {
        var key: SimulatedDeviceKey
        var deviceID: String
        var userID: String
        var host: String
        var late: Duration
        var lookupLag: Duration
    }

    struct Found: Sendable {
        var key: SimulatedDeviceKey
        var host: String
        var deviceID: String
        var userID: String
    }

    enum Effect: Sendable {
        case create(Creation)
        case start(SimulatedDeviceKey, late: Duration)
        case stop(SimulatedDeviceKey)
        case destroy(SimulatedDeviceKey, late: Duration)
        case find(sagaID: String)
    }

    enum Answer: Sendable {
        case done
        /// How long ago the device was first started, by a clock that may have been set back since.
        case started(ago: Duration)
        /// There is no such device.
        case gone
        case found([Found])
    }

    /// Why there is no answer.
    enum Failure: Error {
        case database(PostgresError)
        /// Nothing was sent: its task was cancelled while it waited for its turn.
        case withdrawn
        /// Nothing was sent: it may not be any more.
        case unauthorized(StepError)
    }

    /// From when a call is sent until it has taken effect, or never will.
    static let limit = Duration.seconds(2)
    /// Microseconds from now to the latest deadline that there can be: two clocks that go equally fast differ a little.
    private static let latest = (SimulatedStore.limit + .milliseconds(250)).wholeMicroseconds

    private struct Call: Sendable {
        var effect: Effect
        /// Throws if this process may not start effects any more.
        var authorize: @Sendable () throws(StepError) -> Void
    }

    /// One for all batches.
    private final class Clock: Sendable {
        let state = Mutex(SimulatedClock())
    }

    private let database: PostgresPool
    private let batcher: Batcher<Call, Answer, Failure>

    init(database: PostgresPool) {
        self.database = database
        let clock = Clock()
        self.batcher = Batcher(
            maximumBatch: 512, maximumInFlight: 2, maximumQueued: 100_000,
            overflow: .database(PostgresError(.overloaded, "too many calls to the simulated provider")),
            perform: { await Self.perform($0, database, clock) })
    }

    /// - Parameter authorize: called right before the call is sent, with others that wait.
    func submit(
        _ effect: Effect, authorize: @escaping @Sendable () throws(StepError) -> Void
    ) async throws(Failure) -> Answer {
        try await self.batcher.submit(Call(effect: effect, authorize: authorize), withdrawn: .withdrawn)
    }

    /// Everything that is there.
    func listAll() async throws(PostgresError) -> [Found] {
        try await self.database.run(SQLQuery(Self.list)).map { (row) throws(PostgresError) in try Self.found(row) }
    }

    // MARK: Batches

    private static func perform(
        _ calls: [Call], _ database: PostgresPool, _ clock: Clock
    ) async -> [Result<Answer, Failure>] {
        do throws(PostgresError) {
            let refusals = calls.map { call -> StepError? in
                do throws(StepError) { try call.authorize() } catch { return error }
                return nil
            }
            let effects = zip(calls, refusals).filter { $1 == nil }.map(\.0.effect)
            var answers: ArraySlice<Answer> = []
            if !effects.isEmpty {
                let deadline = try await Self.deadline(database, clock)
                answers = try await Self.answers(effects, database, clock, until: deadline)[...]
            }
            return refusals.map { refusal in
                if let refusal { return .failure(.unauthorized(refusal)) }
                guard let answer = answers.popFirst() else { return .failure(.withdrawn) }
                return .success(answer)
            }
        } catch {
            // Late by a clock that has leapt, maybe: the next batch asks what time it is.
            clock.state.withLock { $0.forget() }
            return calls.map { _ in .failure(.database(error)) }
        }
    }

    private static func deadline(_ database: PostgresPool, _ clock: Clock) async throws(PostgresError) -> Int64 {
        if let now = clock.state.withLock({ $0.now(at: .now) }) { return now + Self.limit.wholeMicroseconds }
        let rows = try await database.run(SQLQuery(Self.time))
        guard let now = try rows.first?.int64(0) else { throw PostgresError(.decoding, "the database has no time") }
        clock.state.withLock { $0.read(now, at: .now) }
        return now + Self.limit.wholeMicroseconds
    }

    /// The kinds of effects, in the order of their statements.
    private enum Kind: Int, CaseIterable { case create, start, stop, destroy, find, deadline }

    private static func answers(
        _ effects: [Effect], _ database: PostgresPool, _ clock: Clock, until deadline: Int64
    ) async throws(PostgresError) -> [Answer] {
        // A row must not be touched twice by one statement: what is asked twice is done once and answered twice.
        var creations: [SimulatedDeviceKey: Creation] = [:]
        var starts: [SimulatedDeviceKey: Duration] = [:]
        var stops: Set<SimulatedDeviceKey> = []
        var destructions: [SimulatedDeviceKey: Duration] = [:]
        var sagas: Set<String> = []
        for effect in effects {
            switch effect {
            case .create(let creation): creations[creation.key] = creation
            case .start(let key, let late): starts[key] = late
            case .stop(let key): stops.insert(key)
            case .destroy(let key, let late): destructions[key] = late
            case .find(let sagaID): sagas.insert(sagaID)
            }
        }
        var limit = SQLParameters()
        limit.append(deadline)
        let keepDeadline = SQLQuery(Self.keepDeadline, limit)
        // Before each statement, for which it leaves the rest of the time, and after the last, so that what waited is
        // not committed late.
        var queries = [keepDeadline]
        var kinds = [Kind.deadline]
        func add(_ kind: Kind, _ query: SQLQuery) {
            kinds += [kind, .deadline]
            queries += [query, keepDeadline]
        }
        if !creations.isEmpty { add(.create, Self.creation(creations.values.sorted { $0.key < $1.key })) }
        if !starts.isEmpty { add(.start, Self.change(Self.start, starts)) }
        if !stops.isEmpty {
            add(.stop, Self.change(Self.stop, Dictionary(uniqueKeysWithValues: stops.map { ($0, .zero) })))
        }
        if !destructions.isEmpty { add(.destroy, Self.change(Self.destroy, destructions)) }
        if !sagas.isEmpty {
            var parameters = SQLParameters()
            parameters.append(array: sagas.sorted())
            add(.find, SQLQuery(Self.find, parameters))
        }
        let results = try await database.run(queries)

        var started: [SimulatedDeviceKey: Duration] = [:]
        var stopped: Set<SimulatedDeviceKey> = []
        var destroyed: Set<SimulatedDeviceKey> = []
        var found: [String: [Found]] = [:]
        for (kind, rows) in zip(kinds, results) {
            for row in rows {
                switch kind {
                case .create: break
                case .deadline:
                    let now = try row.int64(1)
                    clock.state.withLock { $0.read(now, at: .now) }
                case .start: started[try Self.key(row)] = .microseconds(try row.int64(3))
                case .stop: stopped.insert(try Self.key(row))
                case .destroy: destroyed.insert(try Self.key(row))
                case .find: found[try row.text(0), default: []].append(try Self.found(row))
                }
            }
        }
        return effects.map { effect in
            switch effect {
            case .create: .done
            case .start(let key, _): started[key].map { .started(ago: $0) } ?? .gone
            case .stop(let key): stopped.contains(key) ? .done : .gone
            case .destroy(let key, _): destroyed.contains(key) ? .done : .gone
            case .find(let sagaID): .found(found[sagaID] ?? [])
            }
        }
    }

    private static func key(_ row: SQLRow) throws(PostgresError) -> SimulatedDeviceKey {
        SimulatedDeviceKey(sagaID: try row.text(0), generation: try row.int32(1), repeated: try row.int32(2))
    }

    private static func found(_ row: SQLRow) throws(PostgresError) -> Found {
        Found(key: try Self.key(row), host: try row.text(3), deviceID: try row.uuid(4), userID: try row.text(5))
    }

    private static func creation(_ creations: [Creation]) -> SQLQuery {
        var parameters = SQLParameters()
        parameters.append(array: creations.map(\.key.sagaID))
        parameters.append(array: creations.map(\.key.generation))
        parameters.append(array: creations.map(\.key.repeated))
        parameters.appendUUIDs(creations.map(\.deviceID))
        parameters.append(array: creations.map(\.userID))
        parameters.append(array: creations.map(\.host))
        parameters.append(array: creations.map { $0.late.wholeMicroseconds })
        parameters.append(array: creations.map { ($0.late + $0.lookupLag).wholeMicroseconds })
        return SQLQuery(Self.create, parameters)
    }

    private static func change(_ statement: SQLStatement, _ changes: [SimulatedDeviceKey: Duration]) -> SQLQuery {
        let sorted = changes.sorted { $0.key < $1.key }
        var parameters = SQLParameters()
        parameters.append(array: sorted.map(\.key.sagaID))
        parameters.append(array: sorted.map(\.key.generation))
        parameters.append(array: sorted.map(\.key.repeated))
        parameters.append(array: sorted.map { $0.value.wholeMicroseconds })
        return SQLQuery(statement, parameters)
    }

    // MARK: SQL

    private static let time = SQLStatement(
        "simulated_time", "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")

    /// After the deadline this is an error ("late" is no time), and ends the transaction with all that it did. So it is where the
    /// deadline lies further ahead than a deadline can: then the database's clock has been set back, and what was read from it
    /// before says nothing.
    private static let keepDeadline = SQLStatement(
        "simulated_keep_deadline",
        """
        SELECT set_config(
            'statement_timeout',
            CASE WHEN $1 - now BETWEEN 1 AND \(SimulatedStore.latest)
                THEN ceil(($1 - now) / 1000.0)::bigint::text ELSE 'late' END,
            true), now
        FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS c
        """)

    /// Whether what is written in this column of `d` has come about. What wasn't told to come later is there at once, whatever
    /// the clock says; if the clock stands before the order, it was set back, and what was to come later comes now.
    private static func isPast(_ column: String) -> String {
        "(\(column) <= greatest(now(), d.ordered_at) OR clock_timestamp() < coalesce(d.ordered_at, '-infinity'))"
    }

    private static let isGone = "(d.destroyed_at IS NOT NULL AND \(SimulatedStore.isPast("d.destroyed_at")))"
    private static let isVisible = "\(SimulatedStore.isPast("d.visible_at")) AND NOT \(SimulatedStore.isGone)"

    /// A repeated key finds its row again, and makes a late effect happen now. What was destroyed is made anew: the
    /// provider has forgotten its key.
    private static let create = SQLStatement(
        "simulated_create",
        """
        INSERT INTO simulated_device AS d (
            saga_id, generation, repeat, device_id, user_id, host, appears_at, visible_at, ordered_at)
        SELECT c.saga_id, c.generation, c.repeat, c.device_id, c.user_id, c.host,
            now() + c.late * interval '1 microsecond', now() + c.hidden * interval '1 microsecond', now()
        FROM unnest(
            $1::text[], $2::int[], $3::int[], $4::uuid[], $5::text[], $6::text[], $7::bigint[], $8::bigint[]
        ) AS c(saga_id, generation, repeat, device_id, user_id, host, late, hidden)
        ON CONFLICT (saga_id, generation, repeat) DO UPDATE
        SET create_calls = d.create_calls + 1, appears_at = least(d.appears_at, excluded.appears_at),
            visible_at = least(d.visible_at, excluded.visible_at),
            ordered_at = greatest(d.ordered_at, excluded.ordered_at),
            started_at = CASE WHEN \(SimulatedStore.isGone) THEN NULL ELSE d.started_at END,
            destroyed_at = CASE WHEN \(SimulatedStore.isGone) THEN NULL ELSE d.destroyed_at END
        """)

    private static let changed = """
        FROM unnest($1::text[], $2::int[], $3::int[], $4::bigint[]) AS c(saga_id, generation, repeat, late)
        WHERE d.saga_id = c.saga_id AND d.generation = c.generation AND d.repeat = c.repeat
            AND \(SimulatedStore.isPast("d.appears_at")) AND NOT \(SimulatedStore.isGone)
        RETURNING d.saga_id, d.generation, d.repeat
        """

    private static let start = SQLStatement(
        "simulated_start",
        """
        UPDATE simulated_device d SET started_at = least(d.started_at, now() + c.late * interval '1 microsecond')
        \(changed), (extract(epoch FROM now() - d.started_at) * 1000000)::bigint
        """)

    private static let stop = SQLStatement(
        "simulated_stop", "UPDATE simulated_device d SET started_at = NULL \(changed)")

    private static let destroy = SQLStatement(
        "simulated_destroy",
        """
        UPDATE simulated_device d
        SET destroyed_at = least(d.destroyed_at, now() + c.late * interval '1 microsecond'),
            ordered_at = greatest(d.ordered_at, now())
        \(changed)
        """)

    private static let find = SQLStatement(
        "simulated_find",
        """
        SELECT d.saga_id, d.generation, d.repeat, d.host, d.device_id, d.user_id
        FROM unnest($1::text[]) AS s(saga_id) JOIN simulated_device d ON d.saga_id = s.saga_id
        WHERE \(SimulatedStore.isVisible)
        ORDER BY d.saga_id, d.generation, d.repeat
        """)

    private static let list = SQLStatement(
        "simulated_list",
        """
        SELECT d.saga_id, d.generation, d.repeat, d.host, d.device_id, d.user_id
        FROM simulated_device d
        WHERE \(SimulatedStore.isVisible)
        ORDER BY d.saga_id, d.generation, d.repeat
        """)
}
