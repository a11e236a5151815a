import Logging
import Synchronization
import TestSupport

@testable import SagaRuntime

/// A journal on a database of its own, with an instance that is alive and today's partitions.
final class JournalFixture: Sendable {
    let database: TestDatabase
    let pool: PostgresPool
    let journal: Journal
    let clock = DatabaseClock()
    let days = SagaDays()
    let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    private let task: Task<Void, Never>

    /// The instance in whose name the journal writes.
    static let owner: Int64 = 7

    /// A grant that a test can refuse by name, written down in a table, so that it can be counted.
    static let grant = DatabaseStep(
        name: "test_grant",
        ctes: """
            granted AS (
                INSERT INTO test_grant (saga_id)
                SELECT saga_id FROM accepted WHERE (argument->>'refuse')::boolean IS NOT TRUE
                RETURNING saga_id, '{"granted":true}' AS output
            )
            """,
        argument: { view in #"{"refuse":\#(view.userID == "refused")}"# },
        refusal: StepError(.refused, reason: "REFUSED", message: "refused by the test"))

    /// Counts how often it ran for a saga.
    static let effect = SideEffect(
        name: "test_effect",
        statement: "INSERT INTO test_effect (saga_id) SELECT saga_id FROM accepted", argument: { _ in "{}" })

    static let definition = SagaDefinition(
        type: "TEST", version: 1,
        steps: [
            StepDefinition(name: "GRANT", action: .database(JournalFixture.grant)),
            StepDefinition(
                name: "ACT", action: .remote(ScriptedStep()), undoIsRemote: true, onSucceeded: [JournalFixture.effect]),
        ], provisionedStep: 0)

    /// - Parameter role: whom the journal connects as, with rights on what is there; else the owner of all.
    static func make(
        writers: Int = 1, maximumQueuedAdmissions: Int = 8192, role: String? = nil
    ) async throws -> JournalFixture {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let pool = PostgresPool(database.engineConfiguration, size: 4, maximumWaiters: 1000)
        try await pool.execute(
            """
            CREATE TABLE test_grant (saga_id text);
            CREATE TABLE test_effect (saga_id text);
            INSERT INTO saga_instance (instance_id, name, nonce, lease_until)
            VALUES (\(Self.owner), 'test', gen_random_uuid(), clock_timestamp() + interval '1 hour')
            """)
        return try await JournalFixture(
            database: database, pool: pool, writers: writers, maximumQueuedAdmissions: maximumQueuedAdmissions,
            role: role)
    }

    private init(
        database: TestDatabase, pool: PostgresPool, writers: Int, maximumQueuedAdmissions: Int, role: String?
    ) async throws {
        self.database = database
        self.pool = pool
        final class Box: Sendable { let writers = Mutex<[Int: PostgresConnection]>([:]) }
        let box = Box()
        var connection = database.engineConfiguration
        if let role {
            // Roles belong to the server, which other tests share.
            let name = "\(role)_\(database.name)"
            try await pool.execute(
                """
                CREATE ROLE \(name) LOGIN;
                ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO \(name);
                GRANT ALL ON ALL TABLES IN SCHEMA public TO \(name);
                """)
            connection.conninfo = database.conninfo(user: name)
        }
        self.journal = Journal(
            configuration: Journal.Configuration(
                connection: connection, writers: writers,
                maximumQueuedAdmissions: maximumQueuedAdmissions),
            owner: Self.owner, days: self.days, clock: self.clock, logger: self.logger, observer: NoObserver(),
            registerBackends: { number, connection in box.writers.withLock { $0[number] = connection } })
        let journal = self.journal
        self.task = Task { await journal.run() }
        try await self.clock.synchronise(with: pool)
        try await PartitionKeeper(pool: pool, days: self.days, clock: self.clock, logger: self.logger).ensure()
        while box.writers.withLock({ $0.count }) < writers { try await Task.sleep(for: .milliseconds(5)) }
        self.connections = { box.writers.withLock { Array($0.values) } }
    }

    /// The journal's connections as they are now.
    let connections: @Sendable () -> [PostgresConnection]

    func close() async {
        self.task.cancel()
        await self.task.value
        await self.pool.shutdown()
    }

    /// From now on flushes take until `letGo()`, without waiting for anybody's lock.
    func hold() async throws {
        try await self.pool.execute(
            """
            CREATE TABLE test_hold (held boolean);
            INSERT INTO test_hold VALUES (true);
            CREATE FUNCTION test_hold() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                WHILE EXISTS (SELECT 1 FROM test_hold) LOOP PERFORM pg_sleep(0.005); END LOOP;
                RETURN NULL;
            END $$;
            CREATE TRIGGER test_hold BEFORE INSERT ON saga_event EXECUTE FUNCTION test_hold();
            """)
    }

    /// Waits until one does.
    func waitUntilHeld() async throws {
        let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while try await self.count(held) == 0 { try await Task.sleep(for: .milliseconds(5)) }
    }

    func letGo() async throws { try await self.pool.execute("DELETE FROM test_hold") }

    // MARK: Sagas

    func machine(
        user: String = "u", requestID: String = "", id: SagaID? = nil, timeout: Duration = .seconds(600)
    ) -> SagaMachine {
        var generator = SystemRandomNumberGenerator()
        let id = id ?? SagaID(milliseconds: self.clock.now().milliseconds, using: &generator)
        return SagaMachine(
            definition: Self.definition,
            new: NewSaga(
                id: id, type: "TEST", userID: user, resourceID: "00000000-0000-0000-0000-000000000001",
                requestID: requestID, method: 1, requestDigest: [1], batchID: "", request: [], secrets: [9],
                timeout: timeout),
            now: self.clock.now(), random: { 0.5 })
    }

    /// Writes what the machine wants written, and tells it how that ended.
    func write(_ machine: inout SagaMachine) async -> JournalOutcome? {
        guard case .write(let record) = machine.next(now: self.clock.moment()) else { return nil }
        let outcome = await self.journal.write(record)
        if case .committed(let granted, let output) = outcome {
            _ = machine.recordWritten(
                record, .committed(granted: granted, databaseOutput: output), now: self.clock.moment())
        }
        return outcome
    }

    /// Writes many at once, so that they share flushes; in the order given.
    func writeAll(_ machines: [SagaMachine]) async -> [(machine: SagaMachine, outcome: JournalOutcome?)] {
        await withTaskGroup(of: (Int, SagaMachine, JournalOutcome?).self) { group in
            for (index, machine) in machines.enumerated() {
                group.addTask {
                    var machine = machine
                    let outcome = await self.write(&machine)
                    return (index, machine, outcome)
                }
            }
            var results: [(machine: SagaMachine, outcome: JournalOutcome?)?] = Array(
                repeating: nil, count: machines.count)
            for await (index, machine, outcome) in group { results[index] = (machine, outcome) }
            return results.compactMap { $0 }
        }
    }

    /// Sagas whose remote step has succeeded, so that their next record ends them.
    func readyToEnd(_ count: Int, timeout: Duration = .seconds(600)) async -> [SagaMachine] {
        var machines = await self.writeAll((0..<count).map { _ in self.machine(timeout: timeout) }).map(\.machine)
        for index in machines.indices {
            let now = self.clock.moment()
            if case .call(let call, _) = machines[index].next(now: now) {
                machines[index].callReturned(call, .succeeded(output: "{}"), asked: now, now: now)
            }
        }
        return machines
    }

    func count(_ sql: String) async throws -> Int {
        Int(try await self.pool.run(SQLQuery(SQLStatement("count_\(abs(sql.hashValue))", sql))).single().int64(0))
    }
}

extension JournalOutcome {
    var isCommitted: Bool { if case .committed = self { true } else { false } }
    var isFenced: Bool { if case .fenced = self { true } else { false } }
    var isDuplicate: Bool { if case .duplicate = self { true } else { false } }
    var isRejected: Bool { if case .rejected = self { true } else { false } }
    var isLate: Bool { if case .late = self { true } else { false } }
    var isWithdrawn: Bool { if case .withdrawn = self { true } else { false } }
    var isOverloaded: Bool { if case .overloaded = self { true } else { false } }
}
