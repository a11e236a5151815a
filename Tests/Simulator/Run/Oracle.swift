@testable import SagaRuntime

/// Judges a run when it is over, by what stands in the tables and what is there in the world. Shares no code with the
/// engine: it reads one column of the engine's, the status.
struct Oracle {
    let world: World

    /// Seconds that a saga takes at most if nothing but others' rows stands in its way.
    private static let unhurried = 6

    /// What is wrong; empty: nothing.
    func judge(_ end: Scheduler.End) -> [String] {
        var wrong: [String] = []
        let clients = self.world.clients
        wrong += clients.flatMap(\.problems) + self.world.problems
        if end == .standsStill { wrong.append("virtual time stands still: somebody spins") }

        let rows = self.world.database.rows(
            """
            SELECT saga_id, status::text, coalesce(error_message, ''), extract(epoch FROM updated_at - created_at)::int::text,
                last_sequence::text
            FROM saga_state ORDER BY saga_id
            """)
        let commands = self.commands
        let skipped = Set(commands.filter { $0.kind == "SKIP" && $0.result == "DONE" }.map(\.saga))
        let seats = Set(
            self.world.database.rows("SELECT saga_id FROM sim.seat WHERE saga_id IS NOT NULL").map { $0[0] })
        var entries: [String: String] = [:]
        for row in self.world.database.rows("SELECT saga_id, status FROM sim.entry") { entries[row[0]] = row[1] }
        var statuses: [String: String] = [:]
        for row in rows { statuses[row[0]] = row[1] }

        for client in clients {
            if let id = client.acknowledged, statuses[id] == nil { wrong.append("\(id) was acknowledged, and is lost") }
            for id in client.refused where statuses[id] != nil {
                wrong.append("\(id) was refused for good, and started all the same")
            }
            if !client.isDone {
                wrong.append(
                    "client \(client.number) waits to this day for \(client.acknowledged ?? "an acknowledgement")")
            }
        }

        let things = self.world.providers.flatMap { $0.things.filter { $0.goneAt == nil } }
        wrong += self.judge(commands, statuses)
        for row in rows {
            let (id, status, message) = (row[0], row[1], row[2])
            let there = things.filter { $0.saga == id }.count
            let count = self.world.counting.counts[id] ?? 0
            func expect(_ isRight: Bool, _ what: String) {
                if !isRight { wrong.append("\(id) is \(status), with \(what)") }
            }
            switch status {
            case "COMPLETED":
                expect(there == 1, "\(there) things")
                expect(count == 1, "a count of \(count)")
                expect(seats.contains(id), "no seat")
                expect(entries[id] == "STARTED", "entry \(entries[id] ?? "missing")")
            case "COMPENSATED":
                expect(there == 0, "\(there) things")
                // Somebody has seen to it by hand, or said so.
                expect(count == 0 || skipped.contains(id) && count == 1, "a count of \(count)")
                expect(!seats.contains(id), "a seat")
                expect(entries[id] == nil, "an entry")
            case "PARKED":
                if let problem = self.unexplained(id, message) { wrong.append(problem) }
            default:
                wrong.append("\(id) is still \(status)")
            }
            if let client = clients.first(where: { $0.acknowledged == id }), status.hasPrefix("COMP"),
                String(client.watched.count) != row[4]
            {
                wrong.append("\(id) has \(row[4]) events, of which client \(client.number) saw \(client.watched.count)")
            }
            if self.world.plan.theme == .queue, status != "COMPLETED" {
                wrong.append("\(id) is \(status), and nothing but a queue was in its way")
            }
            if self.world.plan.theme == .locks, !self.world.locked.contains(id), let seconds = Int(row[3]),
                seconds > Self.unhurried
            {
                wrong.append("\(id) took \(seconds) s, because of others' rows")
            }
        }
        for row in self.world.database.rows("SELECT saga_id FROM saga_waiting ORDER BY 1")
        where statuses[row[0]]?.hasPrefix("COMP") == true {
            wrong.append("\(row[0]) is over, and waits")
        }
        // What nobody has a row for is nobody's.
        for thing in things where statuses[thing.saga] == nil {
            wrong.append("thing \(thing.number) belongs to \(thing.saga), which there is not")
        }
        return wrong
    }

    /// A command as it stands in its table.
    private struct Command {
        var saga: String
        var kind: String
        var reason: String
        /// Empty: nobody has consumed it.
        var result: String
        /// How long that took, in seconds.
        var seconds: Int
    }

    private var commands: [Command] {
        self.world.database.rows(
            """
            SELECT saga_id, kind, reason, coalesce(result, ''),
                coalesce(extract(epoch FROM consumed_at - issued_at)::int, 0)::text
            FROM saga_command ORDER BY command_id
            """
        ).map { Command(saga: $0[0], kind: $0[1], reason: $0[2], result: $0[3], seconds: Int($0[4]) ?? 0) }
    }

    /// A command that nothing but a call under way holds up.
    private static let prompt = 6

    /// Each command that was acknowledged is consumed, once, with a result that the saga's end agrees with.
    private func judge(_ commands: [Command], _ statuses: [String: String]) -> [String] {
        var wrong: [String] = []
        for given in self.world.given {
            let rows = commands.filter { $0.reason == given.reason }
            let what = "\(given.kind.rawValue) \(given.saga)"
            guard let command = rows.first else {
                if given.answer == .accepted { wrong.append("\(what) was acknowledged, and is lost") }
                continue
            }
            if rows.count > 1 { wrong.append("\(what) was given once, and is there \(rows.count) times") }
            if given.answer == .tooLate { wrong.append("\(what) was refused as too late, and is there") }
            if command.result.isEmpty { wrong.append("\(what) is not consumed") }
            if self.world.plan.isPrompt, command.seconds > Self.prompt {
                wrong.append("\(what) was consumed after \(command.seconds) s")
            }
            let status = statuses[given.saga] ?? "nowhere"
            let turnsBack = given.kind == .cancel || given.kind == .compensate
            if turnsBack, status == "COMPLETED", !["TOO_LATE", "PAST_PIVOT"].contains(command.result) {
                wrong.append("\(what) was answered with \(command.result), and the saga is COMPLETED")
            }
            if turnsBack, command.result == "TOO_LATE", status != "COMPLETED" {
                wrong.append("\(what) was answered with TOO_LATE, and the saga is \(status)")
            }
            if command.result == "PAST_PIVOT", !self.world.plan.traits.hasPivot || status != "COMPLETED" {
                wrong.append("\(what) was answered with PAST_PIVOT, and the saga is \(status)")
            }
            guard let client = self.world.clients.first(where: { $0.acknowledged == given.saga }) else { continue }
            let seen = client.watched.filter { $0.type == .commandReceived && $0.message.contains(command.reason) }
                .count
            let isOver = client.watched.last.map { $0.sagaStatus.name == status } ?? false
            if seen > 1 || isOver && seen == 0 {
                wrong.append("\(what) was seen \(seen) times by client \(client.number)")
            }
        }
        return wrong
    }

    /// Why a saga may be parked: the counting service knows no keys, and either one of its answers was lost or the replica
    /// that may have asked was lost.
    private func unexplained(_ id: String, _ message: String) -> String? {
        if !self.world.plan.countingHonoursKeys {
            if self.world.counting.unanswered.contains(id) || self.world.anyoneTakenForDead { return nil }
        }
        return "\(id) is PARKED for no reason that the faults give: \(message)"
    }
}
