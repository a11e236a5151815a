import Glibc
public import Logging

/// Removes the days whose sagas have all been over for long (docs/database.md, "Retention").
///
/// One replica does it at a time, by a row of `saga_job`. Each part may be done twice, or broken off anywhere: requests go first,
/// by blocks of their table, so that none names a saga that isn't there; then a day's partitions are detached, after one more look
/// under their locks; an hour later they are dropped.
public final class Retention: Sendable {
    public struct Day: Sendable, Equatable {
        /// Since the epoch, UTC.
        public var number: Int64
        /// About so many sagas lie on it, as far as PostgreSQL has counted.
        public var sagas: Int64

        /// `yyyymmdd`.
        public var name: String { PartitionKeeper.name(of: self.number) }
    }

    /// What becomes of the days that are old enough; each list ascending.
    public struct Plan: Sendable, Equatable {
        /// Everything on them is over.
        public var going: [Day] = []
        /// Something on them isn't.
        public var held: [Day] = []
        /// Detached less than an hour ago.
        public var detached: [Day] = []
        /// Detached before that: they are dropped.
        public var dropping: [Day] = []
    }

    /// What the newest pass came to, whichever replica made it.
    public struct State: Sendable, Equatable {
        /// Days that are old enough, and stay.
        public var held: Int
        /// What keeps days from going; empty: nothing.
        public var problem: String
    }

    /// What one pass did.
    public struct Outcome: Sendable, Equatable {
        public var requests: Int64 = 0
        public var detached: [Day] = []
        public var dropped: [Day] = []
        public var held: [Day] = []
        /// Why days stay that could go; empty: they don't.
        public var problems: [String] = []
    }

    /// Sagas of younger days may still be inserted (`PartitionKeeper`).
    public static let minimum: Duration = .seconds(3 * daySeconds)
    private static let daySeconds: Int64 = 86_400
    private static let interval: Duration = .seconds(30)
    /// Blocks of `saga_request` that one statement looks through: a quarter of a megabyte.
    private static let blocks: Int64 = 32
    /// Between those statements, so that others get on.
    private static let pause: Duration = .milliseconds(20)
    /// How often a day's locks are asked for. Each time whoever comes waits behind that, for a tenth of a second at most.
    private static let attempts = 20

    private let pool: PostgresPool
    private let keep: Duration
    private let time: DailyTime
    private let logger: Logger
    private let surroundings = Surroundings.real
    /// This process, in the job's row.
    private let holder: String

    /// - Parameters:
    ///   - keep: how long a saga is kept after its day; `minimum` counts where it is shorter.
    ///   - time: when the pass of a day begins.
    public init(pool: PostgresPool, keep: Duration, time: DailyTime, logger: Logger) {
        self.pool = pool
        self.keep = max(keep, Self.minimum)
        self.time = time
        self.logger = logger
        self.holder = "\(getpid())-\(self.surroundings.integer(in: 1...1_000_000_000))"
    }

    // MARK: Whenever it is time

    /// Makes a pass once a day, until it is cancelled.
    ///
    /// - Parameter report: is told at each look, also by replicas that don't make the pass.
    public func run(report: @Sendable (State) -> Void) async {
        while !Task.isCancelled {
            do throws(PostgresError) {
                try await self.look(report)
            } catch {
                self.logger.log(.warning, cause: "retention", "[SAGA] retention: \(error)")
            }
            try? await self.surroundings.sleep(for: Self.interval)
        }
    }

    private static let state = SQLStatement(
        "saga_retention_state",
        """
        SELECT extract(epoch FROM done_at)::bigint, held, problem, extract(epoch FROM saga_now())::bigint,
            EXISTS (SELECT 1 FROM saga_detached_day WHERE detached_at <= saga_now() - interval '1 hour')
        FROM saga_job WHERE name = 'retention'
        """)

    private func look(_ report: (State) -> Void) async throws(PostgresError) {
        let row = try await self.pool.run(SQLQuery(Self.state)).single()
        let (done, now) = (try row.int64(0), min(try row.int64(3), Int64(Glibc.time(nil))))
        report(State(held: Int(try row.int32(1)), problem: try row.text(2)))
        let isDue = done < self.time.newest(before: now)
        let isDropDue = try row.bool(4)
        guard isDue || isDropDue, try await self.take() else { return }
        let outcome = try await self.pass(isWhole: isDue)
        for problem in outcome.problems { self.logger.log(.error, cause: "retention", "[SAGA] retention: \(problem)") }
        if outcome.detached.count + outcome.dropped.count > 0 {
            self.logger.notice(
                "[SAGA] removed days that are over",
                metadata: [
                    "detached": "\(outcome.detached.map(\.name))", "dropped": "\(outcome.dropped.map(\.name))",
                    "requests": "\(outcome.requests)",
                ])
        }
    }

    // MARK: One pass

    private static let took = SQLStatement(
        "saga_retention_take",
        """
        UPDATE saga_job SET holder = $1, held_until = saga_now() + interval '2 minutes'
        WHERE name = 'retention' AND (holder = $1 OR held_until < saga_now()) RETURNING 1
        """)
    private static let ended = SQLStatement(
        "saga_retention_end",
        """
        UPDATE saga_job SET held = $1, problem = $2, held_until = saga_now(),
            done_at = CASE WHEN $3 THEN saga_now() ELSE done_at END
        WHERE name = 'retention' AND holder = $4
        """)

    /// - Returns: whether it is this one's to do, for two minutes.
    private func take() async throws(PostgresError) -> Bool {
        var parameters = SQLParameters()
        parameters.append(self.holder)
        return try await !self.pool.run(SQLQuery(Self.took, parameters)).isEmpty
    }

    /// Makes a pass now. `nil`: another process is at it.
    public func passNow() async throws(PostgresError) -> Outcome? {
        guard try await self.take() else { return nil }
        return try await self.pass(isWhole: true)
    }

    /// - Parameter isWhole: not only what was detached before is dropped.
    private func pass(isWhole: Bool) async throws(PostgresError) -> Outcome {
        var outcome = Outcome()
        let plan = try await self.plan()
        outcome.held = plan.held
        for day in plan.dropping {
            if let answer = try await self.change(Self.drop, day, &outcome), answer == "DROPPED" {
                outcome.dropped.append(day)
            }
        }
        if isWhole, !plan.going.isEmpty {
            // Whoever has taken it over begins with the requests as well.
            guard let requests = try await self.forgetRequests(of: plan.going) else { return outcome }
            outcome.requests = requests
            for day in plan.going {
                guard try await self.take() else { return outcome }
                if let answer = try await self.change(Self.detach, day, &outcome) {
                    if answer == "HELD" { outcome.held.append(day) } else { outcome.detached.append(day) }
                }
            }
        }
        if isWhole { _ = try await self.pool.run([SQLQuery(Self.forgetCommands), SQLQuery(Self.forgetInstances)]) }
        var parameters = SQLParameters()
        parameters.append(Int32(clamping: outcome.held.count))
        parameters.append(outcome.problems.joined(separator: "; "))
        // What a lock or a right kept from going is tried again the next day: readers are asked to make room once.
        parameters.append(isWhole)
        parameters.append(self.holder)
        _ = try await self.pool.run(SQLQuery(Self.ended, parameters))
        return outcome
    }

    private static let detach = SQLStatement("", "SELECT saga_day_detach($1)")
    private static let drop = SQLStatement("", "SELECT saga_day_drop($1)")

    /// Has the owner's function do something with a day; tries for some seconds where others have locks.
    ///
    /// - Returns: what it says; `nil`: it could not be done, which the outcome says.
    private func change(
        _ statement: SQLStatement, _ day: Day, _ outcome: inout Outcome
    ) async throws(PostgresError) -> String? {
        var parameters = SQLParameters()
        parameters.append(day.number)
        var attempt = 1
        while true {
            do throws(PostgresError) {
                return try await self.pool.run(SQLQuery(statement, parameters)).single().text(0)
            } catch {
                // What the server says of this day; a database that is away has nothing to do with it.
                guard error.code == .server, error.scope != .outage || error.sqlstate == "42501" else { throw error }
                if ["55P03", "40P01", "40001"].contains(error.sqlstate), attempt < Self.attempts, !Task.isCancelled {
                    attempt += 1
                    try? await self.surroundings.sleep(for: .milliseconds(self.surroundings.integer(in: 500...3000)))
                    continue
                }
                outcome.problems.append("day \(day.name) stays: \(error)")
                return nil
            }
        }
    }

    // MARK: What goes

    private static let now = SQLStatement("saga_retention_now", "SELECT extract(epoch FROM saga_now())::bigint")
    private static let days = SQLStatement(
        "saga_retention_days",
        """
        SELECT p.relname::text, c.relname::text, pg_get_expr(c.relpartbound, c.oid), greatest(c.reltuples, 0)::bigint
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE i.inhparent = ANY (ARRAY[to_regclass('saga_state')::oid, to_regclass('saga_event')::oid])
            AND c.oid = to_regclass(quote_ident(c.relname)) AND NOT i.inhdetachpending
        """)
    private static let detached = SQLStatement(
        "saga_retention_detached",
        "SELECT day, detached_at <= saga_now() - interval '1 hour' FROM saga_detached_day ORDER BY day")

    /// What a pass would do.
    public func plan() async throws(PostgresError) -> Plan {
        let results = try await self.pool.run([SQLQuery(Self.now), SQLQuery(Self.days), SQLQuery(Self.detached)])
        // Both clocks must say that it is so late: a wrong one of either removes nothing.
        let now = min(try results[0].single().int64(0), Int64(Glibc.time(nil)))
        let first = (now - self.keep.components.seconds) / Self.daySeconds
        var leaves: [Int64: (count: Int, sagas: Int64)] = [:]
        for row in results[1] {
            let parent = try row.text(0)
            // Only what this program has made, and nobody is detaching.
            guard
                let day = PartitionKeeper.day(ofLeaf: try row.text(1), of: parent, bounds: try row.text(2)), day < first
            else { continue }
            leaves[day, default: (0, 0)].count += 1
            if parent == "saga_state" { leaves[day]?.sagas = try row.int64(3) }
        }
        var plan = Plan()
        for (number, leaf) in leaves.sorted(by: { $0.key < $1.key }) where leaf.count == 2 {
            let day = Day(number: number, sagas: leaf.sagas)
            if try await self.isHeld(day) { plan.held.append(day) } else { plan.going.append(day) }
        }
        for row in results[2] {
            let day = Day(number: try row.int64(0), sagas: 0)
            if try row.bool(1) { plan.dropping.append(day) } else { plan.detached.append(day) }
        }
        return plan
    }

    private func isHeld(_ day: Day) async throws(PostgresError) -> Bool {
        var parameters = SQLParameters()
        parameters.append(day.number)
        return try await self.pool.run(SQLQuery(SQLStatement("", "SELECT saga_day_is_held($1)"), parameters)).single()
            .bool(0)
    }

    private static let requestBlocks = SQLStatement(
        "", "SELECT pg_relation_size('saga_request') / current_setting('block_size')::bigint")
    /// By the place of the rows: no index has to be kept for it, and nothing is missed.
    private static let forgetRequests = SQLStatement(
        "saga_retention_requests",
        """
        WITH gone AS (
            DELETE FROM saga_request r WHERE r.ctid >= format('(%s,0)', $1::bigint)::tid AND r.ctid < format('(%s,0)', $2::bigint)::tid
                AND EXISTS (SELECT 1 FROM unnest($3::text[], $4::text[]) AS d(first, next)
                    WHERE r.saga_id >= d.first COLLATE "C" AND r.saga_id < d.next COLLATE "C")
            RETURNING 1)
        SELECT count(*) FROM gone
        """)
    private static let forgetCommands = SQLStatement(
        "",
        """
        DELETE FROM saga_command c WHERE consumed_at < saga_now() - interval '30 days'
            AND NOT EXISTS (SELECT 1 FROM saga_state s WHERE s.saga_id = c.saga_id AND s.completed_at IS NULL)
        """)
    /// One that still owns something says who must let go of it.
    private static let forgetInstances = SQLStatement(
        "",
        """
        DELETE FROM saga_instance i WHERE fenced AND lease_until < saga_now() - interval '7 days'
            AND NOT EXISTS (SELECT 1 FROM saga_state s WHERE s.owner = i.instance_id AND s.status IN ('RUNNING', 'COMPENSATING'))
            AND NOT EXISTS (SELECT 1 FROM saga_state s WHERE s.owner = i.instance_id AND s.status = 'PARKED')
        """)

    /// - Returns: how many there were; `nil`: another process has taken over.
    private func forgetRequests(of days: [Day]) async throws(PostgresError) -> Int64? {
        let end = try await self.pool.run(SQLQuery(Self.requestBlocks)).single().int64(0)
        var count: Int64 = 0
        for start in stride(from: Int64(0), through: end, by: Int(Self.blocks)) {
            if start % (Self.blocks * 512) == 0 { guard try await self.take() else { return nil } }
            var parameters = SQLParameters()
            parameters.append(start)
            parameters.append(start + Self.blocks)
            parameters.append(array: days.map { PartitionKeeper.bound($0.number) })
            parameters.append(array: days.map { PartitionKeeper.bound($0.number + 1) })
            count += try await self.pool.run(SQLQuery(Self.forgetRequests, parameters)).single().int64(0)
            try? await self.surroundings.sleep(for: Self.pause)
        }
        return count
    }
}
