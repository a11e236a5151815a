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
            SELECT saga_id, status::text, coalesce(error_message, ''), extract(epoch FROM updated_at - created_at)::int::text
            FROM saga_state ORDER BY saga_id
            """)
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

        let things = self.world.provider.things.filter { $0.goneAt == nil }
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
                expect(count == 0, "a count of \(count)")
                expect(!seats.contains(id), "a seat")
                expect(entries[id] == nil, "an entry")
            case "PARKED":
                if let problem = self.unexplained(id, message) { wrong.append(problem) }
            default:
                wrong.append("\(id) is still \(status)")
            }
            if self.world.plan.theme == .locks, !self.world.locked.contains(id), let seconds = Int(row[3]),
                seconds > Self.unhurried
            {
                wrong.append("\(id) took \(seconds) s, because of others' rows")
            }
        }
        // What nobody has a row for is nobody's.
        for thing in things where statuses[thing.saga] == nil {
            wrong.append("thing \(thing.number) belongs to \(thing.saga), which there is not")
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
