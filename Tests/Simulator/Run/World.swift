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
    let providers: [Provider]
    let counting: CountingService
    private(set) var replicas: [Replica] = []
    private(set) var clients: [Client] = []
    let scheduler = Scheduler.shared
    private var chance: Chance
    private var crossings: [Int: Int] = [:]
    private var deadlyCrossings: [Int: Int] = [:]
    private var deadlyRequests: [Int: [(request: Plan.Request, nth: Int)]] = [:]
    private var dueCommands: [(kind: SagaCommand.Kind, request: Plan.Request, nth: Int)] = []
    private var hasCommandedParked = false
    /// Whether a replica may have been taken for dead by others.
    private(set) var anyoneTakenForDead = false
    /// Sagas whose rows a stranger had locked.
    private(set) var locked: Set<String> = []
    private var damaged: [(id: String, event: String)] = []
    private var isMended = false
    private let quietFrom: Int64
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
        self.quietFrom = plan.isQuietFrom.nanoseconds
        self.history = history
        self.faults = faults
        self.database = database
        self.chance = Chance(seed: plan.seed, stream: "world")
        self.providers = plan.traits.sites.enumerated().map { index, name in
            Provider(
                name, index, seed: plan.seed, isUniqueByKey: plan.providerIsUniqueByKey,
                makesJobs: plan.traits.hasJobs, faults: faults, history: history)
        }
        self.counting = CountingService(
            seed: plan.seed, honoursKeys: plan.countingHonoursKeys, faults: faults, history: history)
    }

    // MARK: The run

    /// Sets everything up that is to happen. The scheduler does the rest.
    func begin() {
        self.scheduler.begin(seed: self.seed)
        self.database.begin(self.history, self.faults)
        self.database.crossed = { [unowned self] in self.crossed($0, $1) }
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
        if self.plan.traits.hasOperator {
            for round in 0..<Self.rounds {
                self.scheduler.after(self.plan.storm + Self.operatorComes + .seconds(5 * round)) {
                    self.commandParked(isLast: round == Self.rounds - 1)
                }
            }
        }
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
        case .killAtRequest(let number, let request, let nth):
            self.deadlyRequests[number, default: []].append((request, nth))
        case .command(let kind):
            let isForParked = kind == .resume || kind == .skip
            guard let id = self.pickUnderWay(but: [], isParked: isForParked) ?? self.pickUnderWay(but: []) else {
                return
            }
            self.command(kind, id)
        case .commandAtRequest(let kind, let request, let nth):
            self.dueCommands.append((kind, request, nth))
        case .providerDown(let site, let duration):
            let provider = self.provider(at: site)
            provider.turn(isDown: true)
            self.scheduler.after(duration) { provider.turn(isDown: false) }
        case .unserved(let number, let site, let duration):
            let replica = self.replicas[number - 1]
            replica.turn(site, isServed: false)
            self.scheduler.after(duration) { replica.turn(site, isServed: true) }
        }
    }

    // MARK: Sites

    func provider(at site: String) -> Provider { self.providers.first { $0.name == site } ?? self.providers[0] }

    /// Whether a call of this replica gets through to a site.
    func canCall(_ replica: Replica, _ site: String, for saga: String) -> Bool {
        if !replica.calls.contains(site) {
            self.problems.append("\(saga) is driven by a replica that can never call its provider")
        }
        return replica.served.contains(site)
    }

    // MARK: Commands

    /// A command as it was given, and what its issuer knows.
    struct Given {
        enum Answer { case accepted, tooLate, unknown }
        var saga: String
        var kind: SagaCommand.Kind
        var reason: String
        var answer = Answer.unknown
    }

    private(set) var given: [Given] = []

    var givesCommands: Bool {
        self.plan.traits.hasOperator
            || self.plan.blows.contains {
                switch $0.blow {
                case .command, .commandAtRequest: true
                default: false
                }
            }
    }

    private func command(_ kind: SagaCommand.Kind, _ saga: String) {
        guard let id = SagaID(saga), let replica = self.anyReplica(), let runtime = replica.runtime,
            let machine = replica.machine
        else { return }
        let index = self.given.count
        let reason = "command-\(index + 1)."
        self.given.append(Given(saga: saga, kind: kind, reason: reason))
        self.history.note("operator", "tells \(machine.name): \(kind.rawValue) \(saga), \(reason)")
        Task {
            switch await machine.visit({ try await runtime.command(kind, to: id, by: "operator", reason: reason) }) {
            case .returned(let isAccepted): self.given[index].answer = isAccepted ? .accepted : .tooLate
            case .failed(let error): self.history.note("operator", "is told \(error)")
            case .died: self.history.note("operator", "hears nothing of \(reason)")
            }
        }
    }

    /// A command that meets a request on its way to the server.
    private func commandAwake(at names: [String]) {
        for index in self.dueCommands.indices
        where names.contains(where: { $0.hasSuffix(self.dueCommands[index].request.rawValue) }) {
            self.dueCommands[index].nth -= 1
        }
        let due = self.dueCommands.filter { $0.nth <= 0 }
        if due.isEmpty { return }
        self.dueCommands.removeAll { $0.nth <= 0 }
        let awake = self.database.rows(
            "SELECT saga_id FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING') AND owner > 0 ORDER BY 1")
        if awake.isEmpty { return }
        for command in due { self.command(command.kind, self.chance.pick(awake)[0]) }
    }

    /// An operator's rounds, once the storm is over.
    private static let rounds = 3

    /// What is parked is commanded: first this, then that.
    private func commandParked(isLast: Bool) {
        let parked = self.database.rows("SELECT saga_id FROM saga_state WHERE status = 'PARKED' ORDER BY 1")
        for row in parked { self.command(self.chance.pick([.resume, .skip, .skip, .compensate]), row[0]) }
        if isLast { self.hasCommandedParked = true }
    }

    // MARK: What is overloaded

    /// A replica says that it drives as many sagas as it may: so many must have something to do.
    func isOverloaded(_ replica: String) {
        guard let most = self.plan.traits.maximumInFlight else { return }
        let busy = self.database.rows(
            """
            SELECT count(*)::text FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING')
                AND updated_at > 'epoch'::timestamptz + \(self.database.now.microseconds - 10_000_000) * interval '1 microsecond'
            """)
        let count = (Int(busy.first?.first ?? "") ?? 0) + self.clients.filter(\.isAsking).count
        if count + 1 < most {
            self.problems.append("a creation is refused as one too many, with \(count) sagas that do anything")
        }
    }

    private func pickUnderWay(but others: Set<String>, isParked: Bool = false) -> String? {
        let statuses = isParked ? "'PARKED'" : "'RUNNING', 'COMPENSATING'"
        let rows = self.database.rows("SELECT saga_id FROM saga_state WHERE status IN (\(statuses)) ORDER BY 1")
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
    ///
    /// - Returns: whether the request is lost with it.
    private func crossed(_ machine: Machine, _ names: [String]) -> Bool {
        guard let replica = self.replicas.first(where: { $0.machine === machine }) else { return false }
        if !self.faults.isOver { self.commandAwake(at: names) }
        if !self.faults.isOver, var requests = self.deadlyRequests[replica.number] {
            for index in requests.indices
            where names.contains(where: { $0.hasSuffix(requests[index].request.rawValue) }) {
                requests[index].nth -= 1
            }
            let isDeadly = requests.contains { $0.nth <= 0 }
            self.deadlyRequests[replica.number] = requests.filter { $0.nth > 0 }
            if isDeadly {
                self.anyoneTakenForDead = true
                let isLost = self.chance.happens(0.3)
                self.scheduler.after(self.chance.milliseconds(0, 2)) { replica.kill() }
                return isLost
            }
        }
        self.crossings[replica.number, default: 0] += 1
        guard !self.faults.isOver, let deadly = self.deadlyCrossings[replica.number],
            self.crossings[replica.number] == deadly
        else { return false }
        self.deadlyCrossings[replica.number] = nil
        self.anyoneTakenForDead = true
        self.scheduler.after(self.chance.milliseconds(0, 1.5)) { replica.kill() }
        return false
    }

    /// Nothing goes wrong any more, and everybody has what they wanted, also the sagas whose clients have given up. What is left
    /// of a storm in which nobody wants anything is not waited for.
    var isAtRest: Bool {
        guard self.faults.isOver || self.scheduler.now >= self.quietFrom, self.damaged.isEmpty || self.isMended,
            self.clients.allSatisfy(\.isDone),
            !self.providers.contains(where: \.isAtWork),
            !self.plan.traits.hasOperator || self.plan.countingHonoursKeys || self.hasCommandedParked
        else { return false }
        guard self.scheduler.now >= self.looksAgainAt else { return self.wasAtRest }
        self.looksAgainAt = self.scheduler.now + Duration.seconds(1).nanoseconds
        self.wasAtRest =
            self.database.rows(
                """
                SELECT 1::text FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING')
                UNION ALL SELECT 1::text FROM saga_command WHERE consumed_at IS NULL LIMIT 1
                """
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
