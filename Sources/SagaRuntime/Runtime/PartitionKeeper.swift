import Logging
import Synchronization

/// Keeps the daily partitions of the saga tables, a week ahead.
///
/// The tables are partitioned by `saga_id` itself: the id starts with its creation time, so a day is a range. Each
/// partition is built standing alone, with a CHECK that spares the scan, and then attached under a lock time-out; there
/// is no default partition.
final class PartitionKeeper: Sendable {
    /// Days from today on that have their partitions.
    static let daysKept = 7
    static let interval: Duration = .seconds(60)

    private struct Table {
        var name: String
        var options: String
    }

    private static let tables = [
        // A row is updated three or four times, within a minute or so: room for HOT.
        Table(name: "saga_state", options: "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02"),
        Table(name: "saga_event", options: "autovacuum_vacuum_insert_scale_factor = 0.05"),
    ]

    private let pool: PostgresPool
    private let clock: DatabaseClock
    private let surroundings: Surroundings
    private let logger: Logger
    /// The last day (days since the epoch) up to which all partitions exist.
    private let lastDay = Mutex<Int64>(-1)

    init(pool: PostgresPool, clock: DatabaseClock, logger: Logger) {
        self.pool = pool
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
                try? await self.surroundings.sleep(for: Self.interval)
            } catch {
                self.logger.error("[SAGA] can't make partitions (\(self.daysAhead) days ahead): \(error)")
                try? await self.surroundings.sleep(for: .seconds(5))
            }
        }
    }

    /// Makes what is missing from today to a week ahead, and yesterday's, for sagas minted just before midnight.
    func ensure() async throws(PostgresError) {
        let today = Self.day(self.clock.now())
        for day in Array(today...(today + Int64(Self.daysKept))) + [today - 1] {
            do {
                for table in Self.tables { try await self.ensure(table, day: day) }
            } catch {
                // A database that is away says nothing of its tables; one that refuses lacks this day.
                if day >= today, !error.isConnectionClass, !error.isSerialization {
                    self.lastDay.withLock { $0 = min($0, day - 1) }
                }
                throw error
            }
            self.lastDay.withLock { $0 = max($0, day) }
        }
    }

    private static let existing = SQLStatement(
        "saga_partition_exists",
        """
        SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE p.oid = to_regclass($1) AND c.relname = $2 AND NOT i.inhdetachpending
        """)

    private func ensure(_ table: Table, day: Int64) async throws(PostgresError) {
        let name = "\(table.name)_\(Self.name(of: day))"
        var parameters = SQLParameters()
        parameters.append(table.name)
        parameters.append(name)
        if try await self.pool.run([SQLQuery(Self.existing, parameters)])[0].single().int64(0) > 0 { return }
        let lower = Self.bound(day)
        let upper = Self.bound(day + 1)
        // Replicas take turns; whoever comes second finds it done. A table of that name that stands alone is nobody's leftover
        // (this is one transaction): somebody detached it, and its sagas are not ours to drop. It stops new ones instead.
        try await self.pool.execute(
            """
            BEGIN;
            SET LOCAL lock_timeout = '2s';
            SELECT pg_advisory_xact_lock(hashtextextended('devicerpc.partitions', 0));
            DO $make$
            BEGIN
                IF EXISTS (SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass('\(name)')) THEN RETURN; END IF;
                CREATE TABLE \(name) (LIKE \(table.name) INCLUDING DEFAULTS INCLUDING CONSTRAINTS) WITH (\(table.options));
                ALTER TABLE \(name) ADD CONSTRAINT \(name)_range
                    CHECK (saga_id >= '\(lower)' AND saga_id < '\(upper)');
                ALTER TABLE \(table.name) ATTACH PARTITION \(name) FOR VALUES FROM ('\(lower)') TO ('\(upper)');
                ALTER TABLE \(name) DROP CONSTRAINT \(name)_range;
            END $make$;
            COMMIT
            """)
    }

    // MARK: Days

    static func day(_ time: Timestamp) -> Int64 { time.milliseconds / 86_400_000 }

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
