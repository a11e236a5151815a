import Glibc
import Logging
@testable import SagaRuntime
import TestSupport
import Testing

@Suite struct InstanceLeaseTests {
    private static let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private struct Fixture {
        var database: TestDatabase
        var connection: PostgresConnection
        var pool: PostgresPool

        func configuration(_ name: String, duration: Duration = .seconds(60)) -> InstanceLease.Configuration {
            InstanceLease.Configuration(
                connection: self.database.configuration, name: name, duration: duration, renewal: duration / 3,
                margin: duration / 10)
        }

        func register(
            _ name: String, duration: Duration = .seconds(60), lock: InstanceLock? = nil
        ) async throws -> InstanceLease {
            try await InstanceLease.register(
                self.configuration(name, duration: duration), lock: lock, clock: DatabaseClock(),
                logger: InstanceLeaseTests.logger)
        }

        /// As if the holder had stopped renewing long ago.
        func expire(_ lease: InstanceLease) async throws {
            try await self.connection.execute(
                "UPDATE saga_instance SET lease_until = clock_timestamp() - interval '1 s' WHERE instance_id = \(lease.instanceID)"
            )
        }

        func isFenced(_ lease: InstanceLease) async throws -> Bool {
            var parameters = SQLParameters()
            parameters.append(lease.instanceID)
            let query = SQLQuery(
                SQLStatement("fenced", "SELECT fenced FROM saga_instance WHERE instance_id = $1"), parameters)
            return try await self.connection.run(query).single().bool(0)
        }

        /// Looks until an instance is fenced, as the sweep does.
        func fence(_ dead: InstanceLease, by lease: InstanceLease) async throws {
            while try await !self.isFenced(dead) {
                try await lease.renewOnce(on: self.connection)
                try await lease.fenceDeadInstances(using: self.pool)
                try await Task.sleep(for: .milliseconds(5))
            }
        }

        /// Renews until it has done so for a whole lease.
        func renewForAWholeLease(_ lease: InstanceLease) async throws {
            while !lease.mayFenceOthers {
                try await lease.renewOnce(on: self.connection)
                try await Task.sleep(for: .milliseconds(5))
            }
        }
    }

    private func makeFixture() async throws -> Fixture {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        return Fixture(
            database: database, connection: try await database.connect(),
            pool: PostgresPool(database.configuration, size: 2, maximumWaiters: 10))
    }

    // MARK: Trust

    @Test func trustEndsBeforeTheLeaseAndComesBackWithIt() async throws {
        let fixture = try await self.makeFixture()
        let lease = try await fixture.register("a", duration: .milliseconds(500))
        #expect(lease.isTrusted)
        while lease.isTrusted { try await Task.sleep(for: .milliseconds(1)) }
        let age = lease.age
        #expect(age >= .milliseconds(450))
        try await lease.renewOnce(on: fixture.connection)
        #expect(lease.isTrusted)
        #expect(!lease.isFenced)
    }

    @Test func runRenewsOnItsOwnConnectionAndReconnects() async throws {
        let fixture = try await self.makeFixture()
        let lease = try await fixture.register("a", duration: .milliseconds(600))
        let run = Task { await lease.run() }
        let end = BootTime.now + .milliseconds(1500)
        while BootTime.now < end {
            try await fixture.connection.execute(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE '%-lease'
                """)
            try await Task.sleep(for: .milliseconds(400))
        }
        while !lease.isTrusted { try await Task.sleep(for: .milliseconds(5)) }
        run.cancel()
        await run.value
    }

    @Test func fencedInstanceLearnsItAndIsNeverTrustedAgain() async throws {
        let fixture = try await self.makeFixture()
        let lease = try await fixture.register("a")
        try await fixture.connection.execute("UPDATE saga_instance SET fenced = true")
        try await lease.renewOnce(on: fixture.connection)
        #expect(lease.isFenced)
        #expect(!lease.isTrusted)
        // run() ends by itself.
        await lease.run()
    }

    @Test func releaseFencesItself() async throws {
        let fixture = try await self.makeFixture()
        let lease = try await fixture.register("a")
        await lease.release()
        #expect(lease.isFenced)
        #expect(try await fixture.isFenced(lease))
        // The name is free at once.
        #expect(try await fixture.register("a").instanceID != lease.instanceID)
    }

    @Test func peersAreSeen() async throws {
        let fixture = try await self.makeFixture()
        let a = try await fixture.register("a")
        try await a.renewOnce(on: fixture.connection)
        #expect(!a.hasPeers)
        let b = try await fixture.register("b")
        try await a.renewOnce(on: fixture.connection)
        #expect(a.hasPeers)
        await b.release()
        try await a.renewOnce(on: fixture.connection)
        #expect(!a.hasPeers)
    }

    // MARK: Names

    @Test func secondLiveHolderOfANameIsAStartError() async throws {
        let fixture = try await self.makeFixture()
        let lease = try await fixture.register("same", duration: .milliseconds(900))
        let run = Task { await lease.run() }
        await #expect(throws: InstanceLeaseError.self) { _ = try await fixture.register("same") }
        run.cancel()
        await run.value
        #expect(!lease.isFenced)
    }

    @Test func deadHoldersNameIsTakenWhenItsLeaseIsOver() async throws {
        let fixture = try await self.makeFixture()
        let dead = try await fixture.register("same", duration: .milliseconds(400))
        let start = BootTime.now
        let next = try await fixture.register("same")
        #expect(BootTime.now - start > .milliseconds(300))
        #expect(next.instanceID > dead.instanceID)
        #expect(try await fixture.isFenced(dead))
    }

    @Test func oneOfManyAtOnceGetsTheName() async throws {
        let fixture = try await self.makeFixture()
        let leases: [InstanceLease] = await withTaskGroup(of: InstanceLease?.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    guard let lease = try? await fixture.register("same", duration: .milliseconds(900)) else {
                        return nil
                    }
                    Task { await lease.run() }
                    return lease
                }
            }
            return await group.reduce(into: []) { if let lease = $1 { $0.append(lease) } }
        }
        #expect(leases.count == 1)
        for lease in leases { await lease.release() }
    }

    // MARK: Proof of death

    @Test func proofOfDeathFencesThePredecessorAtOnceAndNobodyElse() async throws {
        let fixture = try await self.makeFixture()
        let directory = try TemporaryDirectory.makeGuarded()
        var lock: InstanceLock? = try InstanceLock.acquire(in: directory)
        #expect(lock?.predecessor() == nil)
        let dead = try await fixture.register("same", lock: lock)
        let other = try await fixture.register("other")
        // Held: no second process in this directory.
        #expect(throws: InstanceLeaseError.self) { _ = try InstanceLock.acquire(in: directory) }
        // The process dies, and the kernel drops its lock.
        lock = nil
        let next = try InstanceLock.acquire(in: directory)
        #expect(next.predecessor()?.instanceID == dead.instanceID)
        let start = BootTime.now
        let lease = try await fixture.register("same", lock: next)
        #expect(BootTime.now - start < .seconds(3))
        #expect(try await fixture.isFenced(dead))
        #expect(try await !fixture.isFenced(other))
        #expect(next.predecessor()?.instanceID == lease.instanceID)
    }

    @Test func proofCountsForItsOwnDatabaseAndBootOnly() async throws {
        let fixture = try await self.makeFixture()
        let innocent = try await fixture.register("innocent")
        let directory = try TemporaryDirectory.makeGuarded()
        let lock = try InstanceLock.acquire(in: directory)
        // The same id, from another database.
        lock.record(
            InstanceLock.Holder(instanceID: innocent.instanceID, nonce: "0188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e5f"))
        _ = try await fixture.register("a", lock: lock)
        #expect(try await !fixture.isFenced(innocent))
        // Another boot, or rubbish.
        for text in ["7 00000000-0000-0000-0000-000000000000 0188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e5f", "", "x y z"] {
            let file = fopen("\(directory)/instance.lock", "w")
            fputs(text, file)
            fclose(file)
            #expect(lock.predecessor() == nil)
        }
    }

    // MARK: Fencing

    @Test func nobodyFencesBeforeItHasRenewedForAWholeLease() async throws {
        let fixture = try await self.makeFixture()
        let dead = try await fixture.register("dead")
        try await fixture.expire(dead)
        let lease = try await fixture.register("a", duration: .milliseconds(300))
        try await lease.renewOnce(on: fixture.connection)
        try await lease.fenceDeadInstances(using: fixture.pool)
        #expect(try await !fixture.isFenced(dead))
        try await fixture.renewForAWholeLease(lease)
        try await lease.fenceDeadInstances(using: fixture.pool)
        #expect(try await fixture.isFenced(dead))
    }

    @Test func afterAGapTheWaitStartsAnew() async throws {
        let fixture = try await self.makeFixture()
        let lease = try await fixture.register("a", duration: .milliseconds(200))
        try await fixture.renewForAWholeLease(lease)
        #expect(lease.mayFenceOthers)
        // Stopped, or without a database, for longer than a lease.
        try await Task.sleep(for: .milliseconds(250))
        #expect(!lease.mayFenceOthers)
        try await lease.renewOnce(on: fixture.connection)
        #expect(lease.isTrusted)
        #expect(!lease.mayFenceOthers)
    }

    @Test func theLivingAreNotFenced() async throws {
        let fixture = try await self.makeFixture()
        let alive = try await fixture.register("alive")
        let lease = try await fixture.register("a", duration: .milliseconds(200))
        try await fixture.renewForAWholeLease(lease)
        try await lease.fenceDeadInstances(using: fixture.pool)
        #expect(try await !fixture.isFenced(alive))
        #expect(try await !fixture.isFenced(lease))
    }

    /// A failover to a host whose clock is an hour behind: what the dead have promised lies ahead.
    @Test func leaseThatLiesAheadIsNotTrustedForLongerThanALease() async throws {
        let fixture = try await self.makeFixture()
        let dead = try await fixture.register("dead")
        let lease = try await fixture.register("a", duration: .milliseconds(400))
        let start = BootTime.now
        try await fixture.fence(dead, by: lease)
        let took = BootTime.now - start
        #expect(took >= .milliseconds(400))
        #expect(took < .seconds(10))
    }

    /// The database's clock was put forward, or is another's: all leases look over, and whoever lives renews.
    @Test func clockThatIsAheadFencesNobodyWhoLives() async throws {
        let fixture = try await self.makeFixture()
        let alive = try await fixture.register("alive", duration: .milliseconds(600))
        let lease = try await fixture.register("a", duration: .milliseconds(600))
        try await fixture.renewForAWholeLease(lease)
        for _ in 0..<200 {
            try await alive.renewOnce(on: fixture.connection)
            try await fixture.expire(alive)
            try await lease.renewOnce(on: fixture.connection)
            try await lease.fenceDeadInstances(using: fixture.pool)
        }
        #expect(try await !fixture.isFenced(alive))
    }

    @Test func nameOfOneWhoseLeaseLiesAheadIsTakenAfterALease() async throws {
        let fixture = try await self.makeFixture()
        let dead = try await fixture.register("same", duration: .seconds(3600))
        let start = BootTime.now
        let next = try await fixture.register("same", duration: .milliseconds(500))
        #expect(BootTime.now - start >= .milliseconds(500))
        #expect(next.instanceID > dead.instanceID)
        #expect(try await fixture.isFenced(dead))
    }

    @Test func fencingEndsTheBackendsThatAreRecordedAndNoOthers() async throws {
        let fixture = try await self.makeFixture()
        let dead = try await fixture.register("dead")
        let first = try await fixture.database.connect()
        let second = try await fixture.database.connect()
        let bystander = try await fixture.database.connect()
        try await dead.register(backend: first, slot: 0)
        try await dead.register(backend: second, slot: 3)
        // A backend that has got the number of one that is gone.
        try await fixture.connection.execute(
            """
            UPDATE saga_instance SET backend_pids[6] = \(bystander.backendPID),
                backend_starts[6] = clock_timestamp() - interval '1 day' WHERE instance_id = \(dead.instanceID)
            """)
        try await fixture.expire(dead)
        let lease = try await fixture.register("a", duration: .milliseconds(200))
        try await fixture.fence(dead, by: lease)
        while first.isOpen || second.isOpen { try await Task.sleep(for: .milliseconds(5)) }
        try await bystander.execute("SELECT 1")
        #expect(bystander.isOpen)
    }

    @Test func stoppedClientInMidTransactionLosesItsLocks() async throws {
        let fixture = try await self.makeFixture()
        let dead = try await fixture.register("dead")
        let stopped = try await fixture.database.connect()
        try await dead.register(backend: stopped, slot: 0)
        try await fixture.connection.execute("CREATE TABLE held (n int); INSERT INTO held VALUES (1)")
        try await stopped.execute("BEGIN; UPDATE held SET n = 2")
        try await fixture.expire(dead)
        let lease = try await fixture.register("a", duration: .milliseconds(200))
        try await fixture.fence(dead, by: lease)
        // Waits for the lock, and gets it because its holder is gone.
        try await fixture.connection.execute("UPDATE held SET n = n + 10")
        let query = SQLQuery(SQLStatement("held", "SELECT n FROM held"))
        #expect(try await fixture.connection.run(query).single().int32(0) == 11)
    }
}
