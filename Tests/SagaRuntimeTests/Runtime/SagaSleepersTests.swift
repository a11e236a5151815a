import TestSupport
import Testing

@testable import SagaRuntime

/// Sleep, waking and commands on a real PostgreSQL.
@Suite struct SagaSleepersTests {
    private static let reach = SagaSleepers.Reach(
        owner: JournalFixture.owner, definitions: [(type: "TEST", version: 1)])

    /// Sagas whose call is due, put to sleep.
    private func asleep(
        _ count: Int, _ wait: SagaWait, in fixture: JournalFixture, doubt: Bool = false
    ) async throws -> [SagaMachine] {
        var machines = await fixture.writeAll((0..<count).map { _ in fixture.machine() }).map(\.machine)
        for index in machines.indices {
            let now = fixture.clock.moment()
            if doubt, case .call(let call, _) = machines[index].next(now: now) {
                machines[index].callReturned(call, .abandoned, asked: now, now: now)
            }
            let outcome = await fixture.journal.write(machines[index].sleepRecord(wait, now: now))
            #expect(outcome.isCommitted)
        }
        return machines
    }

    private func wake(
        _ fixture: JournalFixture, limit: Int = 100, by reach: SagaSleepers.Reach = reach,
        _ rate: ((String) -> SagaSleepers.Rate)? = nil
    ) async throws -> [SagaSleepers.Woken] {
        try await SagaSleepers(pool: fixture.pool, days: fixture.days, clock: fixture.clock)
            .wake(limit: limit, by: reach, rate: rate)
    }

    private func due(_ fixture: JournalFixture, in pause: Duration = .zero) -> SagaWait {
        SagaWait(reason: .backOff, until: fixture.clock.now() + pause)
    }

    @Test func sleepersBelongToNobodyUntilTheyAreDue() async throws {
        let fixture = try await JournalFixture.make()
        let early = try await self.asleep(1, self.due(fixture), in: fixture)
        _ = try await self.asleep(1, self.due(fixture, in: .seconds(100)), in: fixture)
        #expect(try await fixture.count("SELECT count(*) FROM saga_state WHERE owner = -1 AND version = 2") == 2)
        // Going to sleep writes no event.
        #expect(try await fixture.count("SELECT count(*) FROM saga_event") == 2)
        let woken = try await self.wake(fixture)
        #expect(woken.map(\.id) == [early[0].snapshot.id] && woken[0].version == 4)
        #expect(woken[0].isUnsent)
        #expect(try await fixture.count("SELECT count(*) FROM saga_waiting") == 1)
        #expect(try await fixture.count("SELECT count(*) FROM saga_state WHERE owner = 7 AND version = 4") == 1)
        #expect(try await self.wake(fixture).isEmpty)
        await fixture.close()
    }

    /// It would be the first that is due, each time.
    @Test func aRowWithoutASagaGoes() async throws {
        let fixture = try await JournalFixture.make()
        let machines = try await self.asleep(2, self.due(fixture), in: fixture)
        try await fixture.pool.execute("DELETE FROM saga_state WHERE saga_id = '\(machines[0].snapshot.id)'")
        #expect(try await self.wake(fixture, limit: 2).map(\.id) == [machines[1].snapshot.id])
        #expect(try await fixture.count("SELECT count(*) FROM saga_waiting") == 0)
        await fixture.close()
    }

    @Test func timeAsleepCountsWithinTheEpochAlone() async throws {
        for changes in [false, true] {
            let fixture = try await JournalFixture.make()
            _ = try await self.asleep(1, self.due(fixture), in: fixture, doubt: true)
            if changes { try await fixture.pool.execute("UPDATE saga_clock SET epoch = epoch + 1") }
            let woken = try await self.wake(fixture)
            #expect(woken.count == 1 && !woken[0].isUnsent)
            #expect((woken[0].awakening.doubtUntil == nil) == changes)
            await fixture.close()
        }
    }

    /// The database's clock is an hour ahead of what this process knows, and others have raised the epoch already.
    @Test func aSleeperWhoseClockIsBehindEndsNoSettleTime() async throws {
        let fixture = try await JournalFixture.make()
        let now = BootTime.now
        fixture.clock.learn(fixture.clock.now() + .seconds(-3600), sent: now, received: now)
        _ = try await self.asleep(1, self.due(fixture, in: .seconds(5)), in: fixture, doubt: true)
        let row = "SELECT count(*) FROM saga_waiting WHERE "
        #expect(try await fixture.count(row + "doubt_until BETWEEN saga_now() - interval '10 s' AND saga_now()") == 1)
        // By that clock its deadline has passed.
        #expect(try await fixture.count(row + "due_at <= saga_now() + interval '5 s'") == 1)
        await fixture.close()
    }

    /// A row whose saga can't be is nobody's probe.
    @Test func malformedRowsKeepNobodyAsleep() async throws {
        let fixture = try await JournalFixture.make()
        let machines = try await self.asleep(
            1, SagaWait(reason: .breakerOpen, dependency: "site-a", until: nil), in: fixture)
        try await fixture.pool.execute(
            """
            INSERT INTO saga_waiting (saga_id, saga_type, definition_version, site, dependency, reason, clock_epoch)
            SELECT '!', saga_type, definition_version, site, dependency, reason, clock_epoch FROM saga_waiting
            """)
        _ = try await self.wake(fixture) { _ in .probe }
        let woken = try await self.wake(fixture) { _ in .probe }
        #expect(woken.map(\.id) == machines.map(\.snapshot.id))
        #expect(try await fixture.count("SELECT count(*) FROM saga_waiting") == 0)
        await fixture.close()
    }

    /// A clock that has stepped since, which nobody has noticed yet.
    @Test func aClockThatIsOffEndsNoSettleTime() async throws {
        let fixture = try await JournalFixture.make()
        _ = try await self.asleep(1, self.due(fixture), in: fixture, doubt: true)
        let now = BootTime.now
        fixture.clock.learn(fixture.clock.now() + .seconds(-5), sent: now, received: now)
        #expect(fixture.clock.hasStepped)
        #expect(try await self.wake(fixture).first?.awakening.doubtUntil == nil)
        await fixture.close()
    }

    @Test func oneProbeWhileADependencyIsDownAndThenMoreEachTime() async throws {
        let fixture = try await JournalFixture.make()
        _ = try await self.asleep(20, SagaWait(reason: .breakerOpen, dependency: "docker"), in: fixture)
        #expect(try await self.wake(fixture).isEmpty)
        #expect(try await self.wake(fixture) { _ in .none }.isEmpty)
        let probes = try await self.wake(fixture) { _ in .probe }
        #expect(probes.count == 1 && probes[0].awakening.dependency == "docker")
        let sleepers = SagaSleepers(pool: fixture.pool, days: fixture.days, clock: fixture.clock)
        var counts: [Int] = []
        for _ in 0..<6 {
            counts.append(try await sleepers.wake(limit: 100, by: Self.reach, rate: { _ in .all }).count)
        }
        #expect(counts == [1, 2, 4, 8, 4, 0])
        await fixture.close()
    }

    /// A dependency that answers slowly: what was woken for it and is still on its way makes room first.
    @Test func noMoreAreWokenThanComeThrough() async throws {
        let fixture = try await JournalFixture.make()
        _ = try await self.asleep(40, SagaWait(reason: .breakerOpen, dependency: "docker"), in: fixture)
        let sleepers = SagaSleepers(pool: fixture.pool, days: fixture.days, clock: fixture.clock)
        var held: Set<SagaID> = []
        func wake() async throws -> Int {
            let woken = try await sleepers.wake(
                limit: 100, by: Self.reach, isHeld: { held.contains($0) }, rate: { _ in .all })
            held.formUnion(woken.map(\.id))
            return woken.count
        }
        #expect(try await wake() == 1)
        #expect(try await wake() == 0)
        held = []
        #expect(try await wake() == 2)
        held.removeFirst()
        #expect(try await wake() == 3)
        #expect(try await wake() == 0)
        await fixture.close()
    }

    /// It fell asleep while the database's clock was an hour ahead.
    @Test func whatIsDueByAClockThatHasSteppedIsLookedAt() async throws {
        let fixture = try await JournalFixture.make()
        let machines = try await self.asleep(2, self.due(fixture, in: .seconds(3600)), in: fixture)
        #expect(try await self.wake(fixture).isEmpty)
        try await fixture.pool.execute("UPDATE saga_clock SET epoch = epoch + 1")
        let later = try await self.asleep(1, self.due(fixture, in: .seconds(3600)), in: fixture)
        #expect(Set(try await self.wake(fixture).map(\.id)) == Set(machines.map(\.snapshot.id)))
        #expect(try await self.wake(fixture).isEmpty)
        #expect(
            try await fixture.count("SELECT count(*) FROM saga_waiting WHERE saga_id = '\(later[0].snapshot.id)'") == 1)
        await fixture.close()
    }

    /// Whichever comes first: the dependency is back, or the instant.
    @Test func whatWaitsForBothIsWokenByEither() async throws {
        let fixture = try await JournalFixture.make()
        func wait(_ pause: Duration) -> SagaWait {
            SagaWait(reason: .breakerOpen, dependency: "docker", until: fixture.clock.now() + pause)
        }
        let due = try await self.asleep(1, wait(.zero), in: fixture)
        let early = try await self.asleep(1, wait(.seconds(100)), in: fixture)
        let first = try await self.wake(fixture) { _ in .none }
        #expect(first.map(\.id) == due.map(\.snapshot.id) && first[0].awakening.dependency == nil)
        let second = try await self.wake(fixture) { _ in .all }
        #expect(second.map(\.id) == early.map(\.snapshot.id) && second[0].awakening.dependency == "docker")
        await fixture.close()
    }

    @Test func probesTakeTurns() async throws {
        let fixture = try await JournalFixture.make()
        let wait = SagaWait(reason: .breakerOpen, dependency: "docker")
        var machines = try await self.asleep(3, wait, in: fixture)
        let sleepers = SagaSleepers(pool: fixture.pool, days: fixture.days, clock: fixture.clock)
        var asked: [SagaID] = []
        for _ in 0..<6 {
            let woken = try await sleepers.wake(limit: 100, by: Self.reach, rate: { _ in .probe })
            #expect(woken.count == 1)
            asked += woken.map(\.id)
            // It is still down.
            guard let index = machines.firstIndex(where: { $0.snapshot.id == woken.first?.id }) else { continue }
            machines[index] = SagaMachine(
                definition: machines[index].definition, snapshot: machines[index].snapshot, version: woken[0].version,
                adoptions: 0, isPoisoned: false, isUnsent: true, slept: woken[0].awakening, secrets: [],
                now: fixture.clock.moment(), random: { 0.5 })
            _ = await fixture.journal.write(machines[index].sleepRecord(wait, now: fixture.clock.moment()))
        }
        let order = machines.map(\.snapshot.id).sorted { $0.rawValue < $1.rawValue }
        #expect(asked == order + order)
        await fixture.close()
    }

    @Test func whatWaitsForASiteIsWokenByWhoServesIt() async throws {
        let fixture = try await JournalFixture.make()
        let dependency = SagaWait(reason: .breakerOpen, dependency: "docker")
        let machines = await fixture.writeAll((0..<4).map { _ in fixture.machine() }).map(\.machine)
        for (index, (site, wait)) in [
            ("here", self.due(fixture)), ("there", self.due(fixture)), ("here", dependency), ("there", dependency),
        ].enumerated() {
            let id = machines[index].snapshot.id
            try await fixture.pool.execute("UPDATE saga_state SET site = '\(site)' WHERE saga_id = '\(id)'")
            _ = await fixture.journal.write(machines[index].sleepRecord(wait, now: fixture.clock.moment()))
        }
        #expect(try await self.wake(fixture) { _ in .all }.isEmpty)
        var reach = Self.reach
        reach.sites = ["here", "elsewhere"]
        let woken = try await self.wake(fixture, by: reach) { _ in .all }.map(\.id)
        #expect(Set(woken) == [machines[0].snapshot.id, machines[2].snapshot.id])
        #expect(try await fixture.count("SELECT count(*) FROM saga_waiting WHERE site = 'there'") == 2)
        await fixture.close()
    }

    @Test func whatIsOfANewerFormatOrInQuarantineIsLeftAlone() async throws {
        let fixture = try await JournalFixture.make()
        let machines = try await self.asleep(3, self.due(fixture), in: fixture)
        var reach = Self.reach
        reach.newer = [machines[0].snapshot.id]
        reach.quarantined = [machines[1].snapshot.id, machines[2].snapshot.id]
        try await fixture.pool.execute(
            "INSERT INTO saga_quarantine (saga_id, instance_id, reason) VALUES ('\(machines[1].snapshot.id)', 7, 'REFUSED')"
        )
        #expect(try await self.wake(fixture, by: reach).map(\.id) == [machines[2].snapshot.id])
        await fixture.close()
    }

    @Test func onlyWhatIsServedIsWoken() async throws {
        let fixture = try await JournalFixture.make()
        _ = try await self.asleep(1, self.due(fixture), in: fixture)
        try await fixture.pool.execute("UPDATE saga_waiting SET definition_version = 2")
        #expect(try await self.wake(fixture).isEmpty)
        await fixture.close()
    }

    @Test func twoThatWakeAtOnceShareThem() async throws {
        let fixture = try await JournalFixture.make()
        _ = try await self.asleep(50, self.due(fixture), in: fixture)
        async let first = self.wake(fixture)
        async let second = self.wake(fixture)
        let ids = try await (first + second).map(\.id)
        #expect(Set(ids).count == ids.count)
        await fixture.close()
    }

    // MARK: Commands

    private func commands(_ fixture: JournalFixture) -> SagaCommands {
        SagaCommands(pool: fixture.pool, days: fixture.days)
    }

    /// No flush that ends, parks or puts to sleep overlooks a command that it doesn't know.
    @Test func anEndThatOverlooksACommandIsRefused() async throws {
        let fixture = try await JournalFixture.make()
        var machine = await fixture.readyToEnd(1)[0]
        let id = machine.snapshot.id
        guard case .accepted = try await self.commands(fixture).issue(.cancel, to: id, by: "ann", reason: "test") else {
            Issue.record("not accepted")
            return
        }
        guard case .commanded = await fixture.write(&machine) else {
            Issue.record("written all the same")
            return
        }
        machine.receive(try await self.commands(fixture).open(of: [id])[id] ?? [])
        #expect(await fixture.write(&machine)?.isCommitted == true)
        #expect(machine.snapshot.status == .completed)
        #expect(
            try await fixture.count(
                "SELECT count(*) FROM saga_command WHERE consumed_at IS NOT NULL AND result = 'TOO_LATE'") == 1)
        #expect(try await self.commands(fixture).issue(.cancel, to: id, by: "ann", reason: "test") == .tooLate)
        await fixture.close()
    }

    @Test func aSleepThatOverlooksACommandIsRefused() async throws {
        let fixture = try await JournalFixture.make()
        var machine = fixture.machine()
        _ = await fixture.write(&machine)
        _ = try await self.commands(fixture).issue(.cancel, to: machine.snapshot.id, by: "ann", reason: "test")
        let record = machine.sleepRecord(self.due(fixture), now: fixture.clock.moment())
        guard case .commanded = await fixture.journal.write(record) else {
            Issue.record("asleep all the same")
            return
        }
        #expect(try await fixture.count("SELECT count(*) FROM saga_waiting") == 0)
        await fixture.close()
    }

    @Test func aCommandWakesWhoSleeps() async throws {
        let fixture = try await JournalFixture.make()
        let machine = try await self.asleep(1, self.due(fixture, in: .seconds(1000)), in: fixture)[0]
        #expect(try await self.wake(fixture).isEmpty)
        _ = try await self.commands(fixture).issue(.resume, to: machine.snapshot.id, by: "ann", reason: "test")
        #expect(try await self.wake(fixture).map(\.id) == [machine.snapshot.id])
        await fixture.close()
    }

    /// Lets the call that is due come to nothing that anybody can decide.
    private func park(_ machine: inout SagaMachine, in fixture: JournalFixture) async {
        let now = fixture.clock.moment()
        if case .call(let call, _) = machine.next(now: now) {
            let error = StepError(.undecidable, reason: "WHO_KNOWS", message: "")
            machine.callReturned(call, .failed(error), asked: now, now: now)
        }
        #expect(await fixture.write(&machine)?.isCommitted == true && machine.snapshot.status == .parked)
    }

    /// What whoever wakes a parked saga makes of it, with the commands that it was given.
    private func taken(
        _ woken: SagaSleepers.Woken, _ parked: SagaMachine, in fixture: JournalFixture
    ) async throws -> SagaMachine {
        var machine = SagaMachine(
            definition: parked.definition, snapshot: parked.snapshot, version: woken.version, adoptions: 0,
            isPoisoned: false, isUnsent: false, slept: woken.awakening, secrets: [], now: fixture.clock.moment(),
            random: { 0.5 })
        machine.receive(try await self.commands(fixture).open(of: [woken.id])[woken.id] ?? [])
        return machine
    }

    @Test func aCommandWakesWhatIsParkedAndARunningSagaStaysItsOwners() async throws {
        let fixture = try await JournalFixture.make()
        let machines = await fixture.writeAll([fixture.machine(), fixture.machine()]).map(\.machine)
        var parked = machines[0]
        await self.park(&parked, in: fixture)
        for machine in machines {
            _ = try await self.commands(fixture).issue(.resume, to: machine.snapshot.id, by: "ann", reason: "test")
        }
        let woken = try await self.wake(fixture)
        #expect(woken.map(\.id) == [parked.snapshot.id])
        #expect(try await self.wake(fixture).isEmpty)
        // Whoever took it up dies before it consumes the command: no claim finds what is parked, so it is due again.
        try await fixture.pool.execute("UPDATE saga_waiting SET due_at = due_at - interval '1 minute'")
        let again = try await self.wake(fixture)
        #expect(again.map(\.id) == [parked.snapshot.id])
        var machine = try await self.taken(again[0], parked, in: fixture)
        #expect(await fixture.write(&machine)?.isCommitted == true && machine.snapshot.status == .running)
        // It goes on, and is shown as one that does.
        #expect(try await fixture.count("SELECT count(*) FROM saga_waiting") == 0)
        await fixture.close()
    }

    /// Two of them: whoever consumes the first dies before it comes to the second.
    @Test func whatStaysParkedKeepsItsPlaceUntilItsLastCommandIsConsumed() async throws {
        let fixture = try await JournalFixture.make()
        var parked = fixture.machine()
        _ = await fixture.write(&parked)
        await self.park(&parked, in: fixture)
        let id = parked.snapshot.id
        for _ in 0..<2 {
            _ = try await self.commands(fixture).issue(.skip, to: id, by: "ann", reason: "test")
        }
        var machine = try await self.taken(self.wake(fixture)[0], parked, in: fixture)
        #expect(machine.commands.map(\.sequence) == [parked.snapshot.lastSequence, parked.snapshot.lastSequence])
        #expect(await fixture.write(&machine)?.isCommitted == true && machine.snapshot.status == .parked)
        #expect(try await fixture.count("SELECT count(*) FROM saga_waiting") == 1)
        #expect(await fixture.write(&machine)?.isCommitted == true && machine.snapshot.status == .parked)
        #expect(try await fixture.count("SELECT count(*) FROM saga_waiting") == 0)
        #expect(try await fixture.count("SELECT count(*) FROM saga_command WHERE result = 'NOT_PARKED'") == 2)
        await fixture.close()
    }

    /// Its rows are damaged: this process tries it once for each command, not every half a minute.
    @Test func whatIsParkedAndCannotBeReadIsTriedOnceForEachCommand() async throws {
        let fixture = try await JournalFixture.make()
        var parked = fixture.machine()
        _ = await fixture.write(&parked)
        await self.park(&parked, in: fixture)
        let id = parked.snapshot.id
        var reach = Self.reach
        reach.quarantined = [id]
        let quarantine = SagaQuarantine(pool: fixture.pool)
        for kind in [SagaCommand.Kind.resume, .compensate] {
            _ = try await self.commands(fixture).issue(kind, to: id, by: "ann", reason: "test")
            #expect(try await self.wake(fixture, by: reach).map(\.id) == [id])
            try await quarantine.record([id: .unreadable], owner: JournalFixture.owner)
            try await fixture.pool.execute("UPDATE saga_waiting SET due_at = due_at - interval '1 minute'")
            #expect(try await self.wake(fixture, by: reach).isEmpty)
            #expect(try await quarantine.count(tidies: true) == 1)
        }
        // Another process has not tried it.
        let woken = try await self.wake(fixture)
        #expect(woken.map(\.id) == [id] && woken[0].wasQuarantined)
        // A command that anybody can give is none to try it again.
        try await quarantine.record([id: .unreadable], owner: JournalFixture.owner)
        _ = try await self.commands(fixture).issue(.cancel, to: id, by: "ann", reason: "test")
        #expect(try await self.wake(fixture, by: reach).isEmpty)
        await fixture.close()
    }

    /// A second command, while the first one is being obeyed here: taking the saga up again would fence its own driver.
    @Test func whatIsDrivenHereIsNotTakenFromItsDriver() async throws {
        let fixture = try await JournalFixture.make()
        var parked = fixture.machine()
        _ = await fixture.write(&parked)
        await self.park(&parked, in: fixture)
        _ = try await self.commands(fixture).issue(.resume, to: parked.snapshot.id, by: "ann", reason: "test")
        let sleepers = SagaSleepers(pool: fixture.pool, days: fixture.days, clock: fixture.clock)
        #expect(try await sleepers.wake(limit: 10, by: Self.reach, isHeld: { _ in true }, rate: nil).isEmpty)
        #expect(try await fixture.count("SELECT count(*) FROM saga_state WHERE version = \(parked.version)") == 1)
        #expect(try await self.wake(fixture).map(\.id) == [parked.snapshot.id])
        await fixture.close()
    }

    /// Commands of sagas that nobody takes up keep nobody else's from being seen.
    @Test func driversLearnOfCommandsHoweverManyWait() async throws {
        let fixture = try await JournalFixture.make()
        var machines = await fixture.writeAll([fixture.machine(), fixture.machine()]).map(\.machine)
        await self.park(&machines[0], in: fixture)
        for machine in machines {
            _ = try await self.commands(fixture).issue(.compensate, to: machine.snapshot.id, by: "ann", reason: "test")
        }
        #expect(try await self.commands(fixture).openOfDriven().keys.map { $0 } == [machines[1].snapshot.id])
        await fixture.close()
    }

    /// Both lock the saga's own row first: neither waits for the other in a circle.
    @Test func commandsAndWakingGetOnTogether() async throws {
        let fixture = try await JournalFixture.make()
        for _ in 0..<5 {
            let machines = try await self.asleep(30, self.due(fixture), in: fixture)
            let commands = self.commands(fixture)
            async let woken = self.wake(fixture)
            for machine in machines.reversed() {
                _ = try await commands.issue(.resume, to: machine.snapshot.id, by: "ann", reason: "test")
            }
            let ids = try await (woken + self.wake(fixture)).map(\.id)
            #expect(Set(ids) == Set(machines.map(\.snapshot.id)) && ids.count == machines.count)
        }
        await fixture.close()
    }

    @Test func aCommandForNobodyIsNotFound() async throws {
        let fixture = try await JournalFixture.make()
        #expect(
            try await self.commands(fixture).issue(.cancel, to: fixture.machine().snapshot.id, by: "ann", reason: "")
                == .notFound)
        await fixture.close()
    }
}
