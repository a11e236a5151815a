import Logging
import Synchronization

/// Keeps the daily partitions of the saga tables, a week ahead.
///
/// The tables are partitioned by `saga_id` itself: the id starts with its creation time, so a day is a range. The owner's
/// function `saga_partition_make` makes them; there is no default partition.
final class PartitionKeeper: Sendable {
    /// Days from today on that have their partitions.
    static let daysKept = 7
    /// How often it looks. Well below what `SagaDays` trusts a list for.
    static let interval: Duration = .seconds(20)

    private static let tables = ["saga_state", "saga_event"]

    private let pool: PostgresPool
    private let days: SagaDays
    private let clock: DatabaseClock
    private let surroundings: Surroundings
    private let logger: Logger
    private let looks = Mutex(Looks())
    /// The last day (days since the epoch) up to which all partitions exist.
    private let lastDay = Mutex<Int64>(-1)

    init(pool: PostgresPool, days: SagaDays, clock: DatabaseClock, logger: Logger) {
        self.pool = pool
        self.days = days
        self.clock = clock
        self.surroundings = clock.surroundings
        self.logger = logger
    }

    /// Whole days after today that have their partitions. Under one, no new sagas are taken.
    var daysAhead: Int { Int(self.lastDay.withLock { $0 } - Self.day(self.clock.now())) }

    func run() async {
        while !Task.isCancelled {
            do {
                try await self.ensure()
                await self.lookForOpenDays()
                try? await self.surroundings.sleep(for: Self.interval)
            } catch {
                self.logger.log(
                    .error, cause: "partitions", "[SAGA] can't make partitions (\(self.daysAhead) days ahead): \(error)"
                )
                try? await self.surroundings.sleep(for: .seconds(5))
            }
        }
    }

    /// Makes what is missing from today to a week ahead, and yesterday's, for sagas minted just before midnight.
    func ensure() async throws(PostgresError) {
        let attached = try await self.list()
        let today = Self.day(self.clock.now())
        var isComplete = true
        for day in Array(today...(today + Int64(Self.daysKept))) + [today - 1] {
            do {
                for table in Self.tables where !attached.contains("\(table)_\(Self.name(of: day))") {
                    isComplete = false
                    try await self.make(table, day: day)
                }
            } catch {
                // A database that is away, or takes nothing now, says nothing of its tables; one that refuses lacks this day.
                if day >= today, error.scope == .record || error.scope == .day {
                    self.lastDay.withLock { $0 = min($0, day - 1) }
                }
                throw error
            }
            self.lastDay.withLock { $0 = max($0, day) }
        }
        if !isComplete { try await self.list() }
    }

    /// A leaf, if its name means to statements what it means here: a search path may lead elsewhere.
    private static let attached = SQLStatement(
        "saga_partitions",
        """
        SELECT p.relname::text, c.relname::text, pg_get_expr(c.relpartbound, c.oid),
            coalesce(c.oid = to_regclass(quote_ident(c.relname)), false)
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE i.inhparent = ANY (ARRAY[to_regclass('saga_state')::oid, to_regclass('saga_event')::oid])
            AND NOT i.inhdetachpending
        """)

    /// Lists what is attached, and teaches the days that have both leaves, by the names and the bounds that they get here.
    ///
    /// - Returns: the names of all that is attached.
    @discardableResult
    private func list() async throws(PostgresError) -> Set<String> {
        let asked = self.surroundings.now
        var attached: Set<String> = []
        var leaves: [Int64: Int] = [:]
        var isComplete = true
        for row in try await self.pool.run([SQLQuery(Self.attached)])[0] {
            let (parent, name, bounds) = (try row.text(0), try row.text(1), try row.text(2))
            attached.insert(name)
            guard try row.bool(3), let day = Self.day(ofLeaf: name, of: parent, bounds: bounds) else {
                isComplete = false
                continue
            }
            leaves[day, default: 0] += 1
        }
        let days = leaves.filter { $0.value == Self.tables.count }.keys.sorted()
        isComplete = isComplete && days.count == leaves.count
        let today = Self.day(self.clock.now())
        let open = self.looks.withLock { looks in
            looks.days = days
            looks.closed.formIntersection(days)
            // Before the first look nobody knows.
            isComplete = isComplete && looks.isDone
            return days.filter { !looks.closed.contains($0) || Self.mayBeBorn(on: $0, today: today) }
        }
        self.days.learn(days, open: open, isComplete: isComplete, asked: asked)
        return attached
    }

    // MARK: Days that are over

    private struct Looks {
        var days: [Int64] = []
        /// Days all of whose sagas were over when they were last looked at.
        var closed: Set<Int64> = []
        /// Every day has been looked at.
        var isDone = false
        /// The closed day after which the next is looked at again.
        var again: Int64 = 0
    }

    /// Whether sagas of a day may be inserted now. One is inserted before its deadline, a day after its birth at most; from then on
    /// the sagas of its day only ever end. Replicas follow the database's clock, if not to the second.
    private static func mayBeBorn(on day: Int64, today: Int64) -> Bool { (today - 2...today + 1).contains(day) }

    /// Days of one pipeline, which holds their locks until its end.
    private static let daysOfALook = 32
    /// Closed days that are looked at again each time, in turns: the database's clock may have been wrong, a row may have been
    /// changed by hand.
    private static let closedDaysOfALook = 16

    /// Finds the days that hold nothing but sagas that are over, which those who look for others then pass by. (The first look
    /// is at all days.) What can't be looked at now stays open.
    func lookForOpenDays() async {
        let today = Self.day(self.clock.now())
        let candidates = self.looks.withLock { looks in
            let closed = looks.closed.sorted()
            var again = closed.filter { $0 > looks.again }.prefix(Self.closedDaysOfALook)
            if again.isEmpty { again = closed.prefix(Self.closedDaysOfALook) }
            looks.again = again.last ?? 0
            return looks.days.filter { !Self.mayBeBorn(on: $0, today: today) && !looks.closed.contains($0) } + again
        }
        var rest = candidates[...]
        while !rest.isEmpty {
            let days = Array(rest.prefix(Self.daysOfALook))
            rest = rest.dropFirst(days.count)
            var areOpen = days.map { _ in true }
            do throws(PostgresError) {
                let results = try await self.pool.run(days.map { SQLQuery(Self.isOpen(SagaLeaf(day: $0))) })
                areOpen = try results.map { (rows) throws(PostgresError) in try rows.single().bool(0) }
            } catch {
                self.logger.debug("[SAGA] can't see which days are over: \(error)")
            }
            self.looks.withLock { looks in
                looks.closed.subtract(days)
                looks.closed.formUnion(zip(days, areOpen).filter { !$0.1 }.map(\.0))
            }
        }
        let isFirst = self.looks.withLock { looks in
            defer { looks.isDone = true }
            return !looks.isDone
        }
        if isFirst { _ = try? await self.list() }
    }

    /// Without a name: it is not kept prepared.
    private static func isOpen(_ leaf: SagaLeaf) -> SQLStatement {
        SQLStatement(
            "",
            """
            SELECT EXISTS (SELECT 1 FROM \(leaf.state) WHERE status IN ('RUNNING', 'COMPENSATING'))
                OR EXISTS (SELECT 1 FROM \(leaf.state) WHERE status = 'PARKED')
            """)
    }

    /// The day whose partition this is; `nil` if its name or its bounds are not those that it gets here.
    static func day(ofLeaf name: String, of parent: String, bounds: String) -> Int64? {
        guard let day = Self.day(ofBounds: bounds), name == "\(parent)_\(Self.name(of: day))" else { return nil }
        return day
    }

    /// The day that these bounds are of; `nil` if they are not a whole day's.
    static func day(ofBounds bounds: String) -> Int64? {
        let parts = bounds.split(separator: "'", omittingEmptySubsequences: false)
        guard parts.count == 5, let id = parts[1].split(separator: "_").last, let milliseconds = Int64(id),
            (0..<10_000_000_000_000).contains(milliseconds)
        else { return nil }
        let day = milliseconds / 86_400_000
        return bounds == "FOR VALUES FROM ('\(Self.bound(day))') TO ('\(Self.bound(day + 1))')" ? day : nil
    }

    /// Made with the owner's rights, by a function of migration 4. Replicas take turns; whoever comes second finds it done.
    private static let make = SQLStatement("saga_partition_make", "SELECT saga_partition_make($1, $2)")

    private func make(_ table: String, day: Int64) async throws(PostgresError) {
        var parameters = SQLParameters()
        parameters.append(table)
        parameters.append(day)
        _ = try await self.pool.run(SQLQuery(Self.make, parameters))
    }

    // MARK: Days

    static func day(_ time: Timestamp) -> Int64 { time.milliseconds / 86_400_000 }
    static func day(of id: SagaID) -> Int64 { id.milliseconds / 86_400_000 }

    /// The smallest id of a day; ids sort as their milliseconds do.
    static func bound(_ day: Int64) -> String {
        let digits = String(day * 86_400_000)
        return "saga_" + String(repeating: "0", count: max(0, 13 - digits.count)) + digits
    }

    /// A day as `yyyymmdd`, proleptic Gregorian, UTC.
    static func name(of day: Int64) -> String {
        // Days to civil date, eras of 400 years.
        let shifted = day + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let dayOfMonth = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        func padded(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(year)\(padded(month))\(padded(dayOfMonth))"
    }
}
