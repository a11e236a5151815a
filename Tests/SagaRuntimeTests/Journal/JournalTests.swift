import TestSupport
import Testing

@testable import SagaRuntime

/// The journal on a real PostgreSQL: what a flush promises when a part of it, or the way to the database, fails.
@Suite struct JournalTests {
    @Test func flushWritesStateEventsAndWhatRidesAlong() async throws {
        let fixture = try await JournalFixture.make()
        let ended = await fixture.writeAll(await fixture.readyToEnd(20))
        #expect(ended.allSatisfy { $0.outcome?.isCommitted == true && $0.machine.snapshot.status == .completed })
        #expect(
            try await fixture.count("SELECT count(*) FROM saga_state WHERE status = 'COMPLETED' AND version = 2") == 20)
        #expect(try await fixture.count("SELECT count(*) FROM saga_event") == 40)
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 20)
        // Secrets live as long as their saga.
        #expect(try await fixture.count("SELECT count(*) FROM saga_secret") == 0)
        await fixture.close()
    }

    @Test func refusalAndGrantShareABatch() async throws {
        let fixture = try await JournalFixture.make()
        let results = await fixture.writeAll((0..<10).map { fixture.machine(user: $0 % 2 == 0 ? "refused" : "u") })
        for (index, result) in results.enumerated() {
            #expect(result.machine.snapshot.status == (index % 2 == 0 ? .compensated : .running))
        }
        #expect(try await fixture.count("SELECT count(*) FROM test_grant") == 5)
        #expect(try await fixture.count("SELECT count(*) FROM saga_state WHERE status = 'COMPENSATED'") == 5)
        #expect(try await fixture.count("SELECT count(*) FROM saga_secret") == 5)
        await fixture.close()
    }

    /// Another instance has taken half of the sagas: that half leaves neither state nor events nor side effects.
    @Test func fencedHalfOfABatchLeavesNothing() async throws {
        let fixture = try await JournalFixture.make()
        let machines = await fixture.readyToEnd(20)
        let taken = machines.prefix(10).map { "'\($0.snapshot.id)'" }.joined(separator: ",")
        try await fixture.pool.execute(
            "UPDATE saga_state SET owner = 99, version = version + 1 WHERE saga_id IN (\(taken))")
        let results = await fixture.writeAll(machines)
        #expect(results.prefix(10).allSatisfy { $0.outcome?.isFenced == true })
        #expect(results.suffix(10).allSatisfy { $0.outcome?.isCommitted == true })
        #expect(try await fixture.count("SELECT count(*) FROM test_effect WHERE saga_id IN (\(taken))") == 0)
        #expect(try await fixture.count("SELECT count(*) FROM saga_event WHERE saga_id IN (\(taken))") == 10)
        #expect(
            try await fixture.count("SELECT count(*) FROM saga_state WHERE owner = 99 AND status = 'RUNNING'") == 10)
        await fixture.close()
    }

    /// The same version number in another owner's hands is not ours.
    @Test func anotherOwnersSameVersionIsFenced() async throws {
        let fixture = try await JournalFixture.make()
        var machine = await fixture.readyToEnd(1)[0]
        try await fixture.pool.execute("UPDATE saga_state SET owner = 99")
        let outcome = await fixture.write(&machine)
        #expect(outcome?.isFenced == true)
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 0)
        await fixture.close()
    }

    @Test func instanceWithoutALeaseInsertsNothing() async throws {
        let fixture = try await JournalFixture.make()
        try await fixture.pool.execute("UPDATE saga_instance SET fenced = true")
        var machine = fixture.machine()
        #expect(await fixture.write(&machine)?.isFenced == true)
        try await fixture.pool.execute("UPDATE saga_instance SET fenced = false, lease_until = now() - interval '1 s'")
        var other = fixture.machine()
        #expect(await fixture.write(&other)?.isFenced == true)
        #expect(try await fixture.count("SELECT count(*) FROM saga_state") == 0)
        #expect(try await fixture.count("SELECT count(*) FROM test_grant") == 0)
        await fixture.close()
    }

    /// SQLSTATE 22021 in one row of a batch: it is found, and alone pays for it.
    @Test func badRowIsFoundAndAloneRejected() async throws {
        let fixture = try await JournalFixture.make()
        var machines = (0..<16).map { _ in fixture.machine() }
        machines[5] = fixture.machine(user: "u\u{0}")
        let results = await fixture.writeAll(machines)
        for (index, result) in results.enumerated() {
            #expect(index == 5 ? result.outcome?.isRejected == true : result.outcome?.isCommitted == true)
        }
        #expect(try await fixture.count("SELECT count(*) FROM saga_state") == 15)
        #expect(try await fixture.count("SELECT count(*) FROM test_grant") == 15)
        await fixture.close()
    }

    @Test func idWithoutAPartitionIsRejectedAlone() async throws {
        let fixture = try await JournalFixture.make()
        var generator = SystemRandomNumberGenerator()
        let far = SagaID(milliseconds: 4_102_444_800_000, using: &generator)
        let results = await fixture.writeAll([fixture.machine(), fixture.machine(id: far), fixture.machine()])
        #expect(results[0].outcome?.isCommitted == true)
        #expect(results[1].outcome?.isRejected == true)
        #expect(results[2].outcome?.isCommitted == true)
        await fixture.close()
    }

    /// A batch may hold sagas of both sides of midnight; each goes into its own day's partition.
    @Test func aDayBoundaryRunsThroughABatch() async throws {
        let fixture = try await JournalFixture.make()
        var generator = SystemRandomNumberGenerator()
        let tomorrow = (PartitionKeeper.day(fixture.clock.now()) + 1) * 86_400_000
        let late = SagaID(milliseconds: tomorrow - 1, using: &generator)
        let early = SagaID(milliseconds: tomorrow, using: &generator)
        let results = await fixture.writeAll([fixture.machine(id: late), fixture.machine(id: early)])
        #expect(results.allSatisfy { $0.outcome?.isCommitted == true })
        #expect(try await fixture.count("SELECT count(DISTINCT tableoid) FROM saga_state") == 2)
        #expect(try await fixture.count("SELECT count(DISTINCT tableoid) FROM saga_event") == 2)
        await fixture.close()
    }

    /// SQLSTATE 40P01: the same batch is flushed again, and nothing is written twice.
    @Test func deadlockIsTriedAgain() async throws {
        let fixture = try await JournalFixture.make()
        let machines = await fixture.readyToEnd(2).sorted { $0.snapshot.id < $1.snapshot.id }
        let rival = try await fixture.database.connect()
        try await rival.execute(
            "BEGIN; SELECT 1 FROM saga_state WHERE saga_id = '\(machines[1].snapshot.id)' FOR UPDATE")
        async let results = fixture.writeAll(machines)
        try await Task.sleep(for: .milliseconds(200))
        // Now each waits for the other; PostgreSQL ends whoever has waited for a second.
        do {
            try await rival.execute("SELECT 1 FROM saga_state WHERE saga_id = '\(machines[0].snapshot.id)' FOR UPDATE")
            try await rival.execute("COMMIT")
        } catch {
            try await rival.execute("ROLLBACK")
        }
        #expect(await results.allSatisfy { $0.outcome?.isCommitted == true })
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 2)
        await rival.close()
        await fixture.close()
    }

    /// The connection is cut between COMMIT and its answer: the rows say that the flush happened, and it is not repeated.
    @Test func lostAnswerOfACommitIsLookedUp() async throws {
        let fixture = try await JournalFixture.make()
        let machines = await fixture.readyToEnd(8)
        for connection in fixture.connections() { connection.loseNextReplyForTesting() }
        let results = await fixture.writeAll(machines)
        #expect(results.allSatisfy { $0.outcome?.isCommitted == true })
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 8)
        #expect(try await fixture.count("SELECT count(*) FROM saga_state WHERE version = 2") == 8)
        await fixture.close()
    }

    @Test func lostAnswerOfACreationIsLookedUp() async throws {
        let fixture = try await JournalFixture.make()
        for connection in fixture.connections() { connection.loseNextReplyForTesting() }
        let results = await fixture.writeAll(
            (0..<6).map { fixture.machine(user: $0 == 2 ? "refused" : "u", requestID: "r\($0)") })
        #expect(results.allSatisfy { $0.outcome?.isCommitted == true })
        #expect(
            results.map { $0.machine.snapshot.status == .compensated } == [false, false, true, false, false, false])
        #expect(
            results[0].machine.snapshot.steps[0].output == #"{"granted": true}"#
                || results[0].machine.snapshot.steps[0].output == #"{"granted":true}"#)
        #expect(try await fixture.count("SELECT count(*) FROM test_grant") == 5)
        await fixture.close()
    }

    @Test func terminatedBackendLosesNothing() async throws {
        let fixture = try await JournalFixture.make(writers: 2)
        for _ in 0..<5 {
            let machines = await fixture.readyToEnd(8)
            async let results = fixture.writeAll(machines)
            try await fixture.pool.execute(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND query = 'COMMIT'
                """)
            for connection in fixture.connections() { connection.severForTesting() }
            #expect(await results.allSatisfy { $0.outcome?.isCommitted == true })
        }
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 40)
        #expect(
            try await fixture.count(
                "SELECT count(*) FROM (SELECT saga_id FROM test_effect GROUP BY 1 HAVING count(*) > 1) x")
                == 0)
        await fixture.close()
    }

    /// The deadline passes between a decision and its flush, which was lost to an outage: nobody is told COMPLETED after
    /// the deadline, and the machine decides anew.
    @Test func lostFlushIsNotRepeatedAfterTheDeadline() async throws {
        let fixture = try await JournalFixture.make(writers: 1)
        var machine = await fixture.readyToEnd(1, timeout: .seconds(1))[0]
        let rival = try await fixture.database.connect()
        try await rival.execute(
            "BEGIN; SELECT 1 FROM saga_state WHERE saga_id = '\(machine.snapshot.id)' FOR UPDATE")
        guard case .write(let record) = machine.next(now: fixture.clock.moment()) else {
            Issue.record("nothing to write")
            return
        }
        #expect(record.granted.snapshot.status == .completed && record.notAfter == machine.snapshot.deadline)
        async let outcome = fixture.journal.write(record)
        while try await fixture.count("SELECT count(*) FROM pg_locks WHERE NOT granted") == 0 {
            try await Task.sleep(for: .milliseconds(5))
        }
        while fixture.clock.now() < machine.snapshot.deadline { try await Task.sleep(for: .milliseconds(20)) }
        for connection in fixture.connections() { connection.severForTesting() }
        #expect(await outcome.isLate)
        try await rival.execute("COMMIT")
        #expect(try await fixture.count("SELECT count(*) FROM saga_state WHERE status = 'RUNNING'") == 1)
        #expect(await fixture.write(&machine)?.isCommitted == true)
        #expect(machine.snapshot.status == .compensating && machine.snapshot.failure?.cause == .timedOut)
        await rival.close()
        await fixture.close()
    }

    /// A stranger holds one row of a flush: its record waits apart, and the others are written meanwhile.
    @Test func aLockedRowWaitsAlone() async throws {
        let fixture = try await JournalFixture.make(writers: 1)
        var machines = await fixture.readyToEnd(20)
        let locked = machines.remove(at: 11)
        let rival = try await fixture.database.connect()
        try await rival.execute("BEGIN; SELECT 1 FROM saga_state WHERE saga_id = '\(locked.snapshot.id)' FOR UPDATE")
        async let waiting = fixture.writeAll([locked] + machines.prefix(10))
        let others = await fixture.writeAll(Array(machines.suffix(9)))
        #expect(others.allSatisfy { $0.outcome?.isCommitted == true })
        while fixture.journal.apart == 0 { try await Task.sleep(for: .milliseconds(5)) }
        while try await fixture.count("SELECT count(*) FROM saga_state WHERE status = 'COMPLETED'") < 19 {
            try await Task.sleep(for: .milliseconds(5))
        }
        #expect(!fixture.journal.isStuck)
        try await rival.execute("COMMIT")
        #expect(await waiting.allSatisfy { $0.outcome?.isCommitted == true })
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 20)
        #expect(fixture.journal.apart == 0)
        await rival.close()
        await fixture.close()
    }

    /// A record that is decided anew while its row is locked goes to the slow lane at once.
    @Test func whatIsDecidedAnewStaysApart() async throws {
        let fixture = try await JournalFixture.make(writers: 1)
        var machine = await fixture.readyToEnd(1, timeout: .seconds(8))[0]
        let rival = try await fixture.database.connect()
        try await rival.execute("BEGIN; SELECT 1 FROM saga_state WHERE saga_id = '\(machine.snapshot.id)' FOR UPDATE")
        #expect(await fixture.write(&machine)?.isLate == true)
        #expect(fixture.journal.apart == 1)
        async let outcome = { [machine] in
            var machine = machine
            return await fixture.write(&machine)
        }()
        try await Task.sleep(for: .milliseconds(50))
        #expect(fixture.journal.queued == 0 && fixture.journal.apart == 1)
        try await rival.execute("COMMIT")
        #expect(await outcome?.isCommitted == true)
        #expect(fixture.journal.apart == 0)
        await rival.close()
        await fixture.close()
    }

    /// A right is missing that only some flushes need: no saga is to blame, and what waits is written once it is there.
    @Test(arguments: [
        ("REVOKE INSERT ON test_effect FROM program", "GRANT INSERT ON test_effect TO program"),
        ("ALTER TABLE test_effect RENAME TO away", "ALTER TABLE away RENAME TO test_effect"),
        (
            "ALTER TABLE test_effect RENAME COLUMN saga_id TO away",
            "ALTER TABLE test_effect RENAME COLUMN away TO saga_id"
        ),
        (
            "ALTER DATABASE current SET default_transaction_read_only = on",
            "ALTER DATABASE current SET default_transaction_read_only = off"
        ),
    ])
    func aDatabaseThatIsWrongIsWaitedFor(_ breaking: String, _ mending: String) async throws {
        let fixture = try await JournalFixture.make(writers: 1, role: "program")
        let machines = await fixture.readyToEnd(8)
        let operatorLine = try await fixture.database.connect()
        func run(_ sql: String) async throws {
            let name = fixture.database.name
            let sql = sql.replacing("DATABASE current", with: "DATABASE \(name)")
                .replacing("program", with: "program_\(name)")
            try await operatorLine.execute("SET default_transaction_read_only = off; \(sql)")
        }
        try await run(breaking)
        for connection in fixture.connections() where breaking.contains("DATABASE") { connection.severForTesting() }
        async let results = fixture.writeAll(machines)
        while !fixture.journal.isStuck { try await Task.sleep(for: .milliseconds(5)) }
        // New ones are refused at once meanwhile, and never happen.
        var new = fixture.machine()
        #expect(await fixture.write(&new)?.isWithdrawn == true)
        try await run(mending)
        #expect(await results.allSatisfy { $0.outcome?.isCommitted == true })
        while fixture.journal.isStuck { try await Task.sleep(for: .milliseconds(5)) }
        #expect(try await fixture.count("SELECT count(*) FROM test_effect") == 8)
        await operatorLine.close()
        await fixture.close()
    }

    /// What is queued when the database turns out to be away is withdrawn; what is under way already is not given up.
    @Test func queuedCreationsAreWithdrawn() async throws {
        let fixture = try await JournalFixture.make(writers: 1)
        let going = await fixture.readyToEnd(3)
        try await fixture.pool.execute("ALTER TABLE saga_event RENAME TO away")
        async let waiting = fixture.writeAll(going)
        let new = await fixture.writeAll((0..<100).map { _ in fixture.machine() })
        #expect(new.allSatisfy { $0.outcome?.isWithdrawn == true })
        try await fixture.pool.execute("ALTER TABLE away RENAME TO saga_event")
        #expect(await waiting.allSatisfy { $0.outcome?.isCommitted == true })
        #expect(try await fixture.count("SELECT count(*) FROM saga_state") == 3)
        await fixture.close()
    }

    /// A caller that goes before its saga's flush has left takes the saga with it.
    @Test func anUnwantedCreationNeverHappens() async throws {
        let fixture = try await JournalFixture.make(writers: 1)
        try await fixture.hold()
        async let first = fixture.writeAll([fixture.machine()])
        try await fixture.waitUntilHeld()
        let machine = fixture.machine()
        async let second = fixture.writeAll([machine])
        while fixture.journal.queued == 0 { try await Task.sleep(for: .milliseconds(1)) }
        fixture.journal.withdraw(machine.snapshot.id)
        try await fixture.letGo()
        #expect(await first[0].outcome?.isCommitted == true)
        #expect(await second[0].outcome?.isWithdrawn == true)
        #expect(try await fixture.count("SELECT count(*) FROM saga_state") == 1)
        await fixture.close()
    }

    /// The partition of a saga's day is away: it waits for it, and sagas of other days don't.
    @Test func aMissingDayIsWaitedFor() async throws {
        let fixture = try await JournalFixture.make(writers: 1)
        var generator = SystemRandomNumberGenerator()
        let tomorrow = (PartitionKeeper.day(fixture.clock.now()) + 1)
        let late = SagaID(milliseconds: tomorrow * 86_400_000, using: &generator)
        var machine = fixture.machine(id: late)
        _ = await fixture.write(&machine)
        let now = fixture.clock.moment()
        if case .call(let call, _) = machine.next(now: now) {
            machine.callReturned(call, .succeeded(output: "{}"), asked: now, now: now)
        }
        let leaf = "saga_event_\(PartitionKeeper.name(of: tomorrow))"
        try await fixture.pool.execute("ALTER TABLE saga_event DETACH PARTITION \(leaf)")
        async let waiting = fixture.writeAll([machine])
        while fixture.journal.apart == 0 { try await Task.sleep(for: .milliseconds(5)) }
        let others = await fixture.writeAll(await fixture.readyToEnd(3))
        #expect(others.allSatisfy { $0.outcome?.isCommitted == true } && !fixture.journal.isStuck)
        try await fixture.pool.execute(
            """
            ALTER TABLE saga_event ATTACH PARTITION \(leaf)
            FOR VALUES FROM ('\(PartitionKeeper.bound(tomorrow))') TO ('\(PartitionKeeper.bound(tomorrow + 1))')
            """)
        #expect(await waiting[0].outcome?.isCommitted == true)
        await fixture.close()
    }

    @Test func sameRequestIDStartsOneSaga() async throws {
        let fixture = try await JournalFixture.make(writers: 3)
        let results = await fixture.writeAll((0..<100).map { _ in fixture.machine(requestID: "same") })
        #expect(results.count { $0.outcome?.isCommitted == true } == 1)
        #expect(results.count { $0.outcome?.isDuplicate == true } == 99)
        #expect(try await fixture.count("SELECT count(*) FROM saga_state") == 1)
        #expect(try await fixture.count("SELECT count(*) FROM test_grant") == 1)
        await fixture.close()
    }

    /// While a flush takes long, records gather; of new sagas no more than may wait, and what is there already is never
    /// refused.
    @Test func admissionIsBounded() async throws {
        let fixture = try await JournalFixture.make(maximumQueuedAdmissions: 3)
        let going = await fixture.readyToEnd(2)
        try await fixture.hold()
        async let blocked = fixture.writeAll([fixture.machine()])
        try await fixture.waitUntilHeld()
        async let waiting = fixture.writeAll((0..<3).map { _ in fixture.machine() })
        while fixture.journal.queued < 3 { try await Task.sleep(for: .milliseconds(5)) }
        var late = fixture.machine()
        #expect(await fixture.write(&late)?.isOverloaded == true)
        async let ended = fixture.writeAll(going)
        while fixture.journal.queued < 5 { try await Task.sleep(for: .milliseconds(5)) }
        try await fixture.letGo()
        for results in await [blocked, waiting, ended] {
            #expect(results.allSatisfy { $0.outcome?.isCommitted == true })
        }
        #expect(try await fixture.count("SELECT count(*) FROM saga_state") == 6)
        await fixture.close()
    }

    /// A plan that is cached while the day's partition is empty must still be the right one when it is full.
    @Test func plansUseIndexesOnAFreshDay() async throws {
        let fixture = try await JournalFixture.make()
        _ = await fixture.writeAll(await fixture.readyToEnd(2))
        let connection = try await PostgresConnection.connect(fixture.database.engineConfiguration)
        try await connection.execute("PREPARE move AS \(JournalStatements().transition(on: .parent).text)")
        // EXPLAIN's rows come only over the simple protocol: kept in a table for the look.
        try await connection.execute(
            """
            CREATE TABLE plan_line (line text);
            DO $$
            DECLARE line text;
            BEGIN
                FOR line IN EXECUTE 'EXPLAIN EXECUTE move (7, ''{a}'', ''{1}'', ''{2026-01-01}'', ''{0}'', ''{0}'', ''{-1}'', ''{RUNNING}'', ''{1}'', ''{X}'', ''{2}'', ''{""}'', ''{x}'')'
                LOOP INSERT INTO plan_line VALUES (line); END LOOP;
            END $$
            """)
        let plan = try await fixture.pool.run(SQLQuery(SQLStatement("plan_lines", "SELECT line FROM plan_line")))
            .map { (row) throws(PostgresError) in try row.text(0) }.joined(separator: "\n")
        #expect(plan.contains("Index Scan"))
        #expect(!plan.contains("Seq Scan on saga_state"), "\(plan)")
        await connection.close()
        await fixture.close()
    }
}
