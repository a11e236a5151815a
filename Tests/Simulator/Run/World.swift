import Logging

@testable import SagaRuntime

/// Everything of one run: the replicas, what surrounds them, who asks them for sagas, and who watches.
///
/// Unchecked: of one thread.
final class World: @unchecked Sendable {
    let plan: Plan
    let faults: Faults
    let history: History
    let database: Database
    let provider: Provider
    let counting: CountingService
    private(set) var replicas: [Replica] = []
    private(set) var clients: [Client] = []
    let scheduler = Scheduler.shared
    private var chance: Chance
    private var crossings: [Int: Int] = [:]
    private var deadlyCrossings: [Int: Int] = [:]
    /// Whether a replica may have been taken for dead by others.
    private(set) var anyoneTakenForDead = false
    /// Sagas whose rows a stranger had locked.
    private(set) var locked: Set<String> = []
    private var damaged: [(id: String, event: String)] = []
    private var isMended = false
    private var looksAgainAt: Int64 = 0
    private var wasAtRest = false
    /// What the operator found.
    private(set) var problems: [String] = []

    /// So long after the storm an operator comes and mends what is damaged: leases are over by then, and whoever had a saga in
    /// hand has ended it.
    private static let operatorComes = Duration.seconds(25)

    var seed: UInt64 { self.plan.seed }

    init(_ plan: Plan, database: Database, prints: Bool) {
        let history = History(prints: prints)
        let faults = Faults(plan)
        self.plan = plan
        self.history = history
        self.faults = faults
        self.database = database
        self.chance = Chance(seed: plan.seed, stream: "world")
        self.provider = Provider(
            seed: plan.seed, isUniqueByKey: plan.providerIsUniqueByKey, faults: faults, history: history)
        self.counting = CountingService(
            seed: plan.seed, honoursKeys: plan.countingHonoursKeys, faults: faults, history: history)
    }

    // MARK: The run

    /// Sets everything up that is to happen. The scheduler does the rest.
    func begin() {
        self.scheduler.begin(seed: self.seed)
        self.database.begin(self.history, self.faults)
        self.database.crossed = { [unowned self] in self.crossed($0) }
        for line in self.plan.description { self.history.note("seed", line) }
        for number in 1...self.plan.replicas {
            let replica = Replica(number: number, world: self)
            self.replicas.append(replica)
            self.scheduler.after(self.chance.milliseconds(0, 500)) { replica.start() }
        }
        for asking in self.plan.askings {
            let client = Client(number: asking.client, world: self)
            self.clients.append(client)
            self.scheduler.after(asking.at) { client.begin() }
        }
        for moment in self.plan.blows { self.scheduler.after(moment.at) { self.strike(moment.blow) } }
        self.scheduler.after(self.plan.storm) {
            self.history.note("seed", "THE STORM IS OVER")
            self.faults.end()
        }
        self.scheduler.after(self.plan.storm + Self.operatorComes) { self.mend() }
    }

    private func strike(_ blow: Plan.Blow) {
        self.history.note("seed", "\(blow)")
        switch blow {
        case .kill(let number):
            self.anyoneTakenForDead = true
            self.replicas[number - 1].kill()
        case .killAtCrossing(let number, let nth):
            self.deadlyCrossings[number] = (self.crossings[number] ?? 0) + nth
        case .freeze(let number, let duration):
            self.anyoneTakenForDead = true
            self.replicas[number - 1].machine?.freeze(for: duration)
        case .stop(let number):
            self.replicas[number - 1].stop()
        case .outage(let duration):
            if duration > .seconds(5) { self.anyoneTakenForDead = true }
            self.database.turn(.down)
            self.scheduler.after(duration) { self.database.turn(.up) }
        case .readOnly(let duration):
            if duration > .seconds(5) { self.anyoneTakenForDead = true }
            self.database.turn(.readOnly)
            self.scheduler.after(duration) { self.database.turn(.up) }
        case .lockedRow(let duration):
            guard let id = self.pickUnderWay(but: self.locked) else { return }
            self.locked.insert(id)
            self.database.lockRow(of: id, for: duration)
        case .clockStep(let step):
            self.anyoneTakenForDead = true
            self.database.ahead += step
        case .damage:
            guard let id = self.pickUnderWay(but: []), let event = self.database.damage(id) else { return }
            self.damaged.append((id, event))
        }
    }

    private func pickUnderWay(but others: Set<String>) -> String? {
        let rows = self.database.rows(
            "SELECT saga_id FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING') ORDER BY 1")
        let underWay = rows.map { $0[0] }.filter { !others.contains($0) }
        return underWay.isEmpty ? nil : self.chance.pick(underWay)
    }

    /// An operator has a look at the quarantine, mends what is in there, and lets it go on.
    private func mend() {
        self.isMended = true
        for (id, event) in self.damaged {
            let row = self.database.rows(
                """
                SELECT status::text, EXISTS (SELECT 1 FROM saga_quarantine q WHERE q.saga_id = s.saga_id)::text
                FROM saga_state s WHERE saga_id = '\(id)'
                """)
            if let row = row.first, ["RUNNING", "COMPENSATING"].contains(row[0]), row[1] != "true" {
                self.problems.append("\(id) can't be read, shows \(row[0]), and nobody is told")
            }
            self.history.note("operator", "mends \(id)")
            self.database.mend(id, event)
        }
    }

    /// Kills a replica at the very moment of a request, before it has left or after.
    private func crossed(_ machine: Machine) {
        guard let replica = self.replicas.first(where: { $0.machine === machine }) else { return }
        self.crossings[replica.number, default: 0] += 1
        guard !self.faults.isOver, let deadly = self.deadlyCrossings[replica.number],
            self.crossings[replica.number] == deadly
        else { return }
        self.deadlyCrossings[replica.number] = nil
        self.anyoneTakenForDead = true
        self.scheduler.after(self.chance.milliseconds(0, 1.5)) { replica.kill() }
    }

    /// Nothing goes wrong any more, and everybody has what they wanted, also the sagas whose clients have given up.
    var isAtRest: Bool {
        guard self.faults.isOver, self.damaged.isEmpty || self.isMended, self.clients.allSatisfy(\.isDone) else {
            return false
        }
        guard self.scheduler.now >= self.looksAgainAt else { return self.wasAtRest }
        self.looksAgainAt = self.scheduler.now + Duration.seconds(1).nanoseconds
        self.wasAtRest =
            self.database.rows(
                "SELECT 1::text FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING') LIMIT 1"
            ).isEmpty
        return self.wasAtRest
    }

    /// A replica that can be asked; not always the best one.
    func anyReplica() -> Replica? {
        let running = self.replicas.filter { $0.runtime != nil }
        return running.isEmpty ? nil : self.chance.pick(running)
    }

    func pause(_ lower: Double, _ upper: Double) -> Duration { self.chance.milliseconds(lower, upper) }
    func happens(_ probability: Double) -> Bool { self.chance.happens(probability) }

    /// Sleep of those who live outside of all machines.
    func sleep(_ duration: Duration) async {
        await withUnsafeContinuation { continuation in self.scheduler.after(duration) { continuation.resume() } }
    }
}
