import Logging

@testable import SagaRuntime

/// Everything of one run: the replicas, what surrounds them, who asks them for sagas, and who watches.
///
/// Unchecked: of one thread.
final class World: @unchecked Sendable {
    let seed: UInt64
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

    init(seed: UInt64, database: Database, prints: Bool) {
        let history = History(prints: prints)
        let faults = Faults(seed: seed)
        self.seed = seed
        self.history = history
        self.faults = faults
        self.database = database
        self.chance = Chance(seed: seed, stream: "world")
        self.provider = Provider(
            seed: seed, isUniqueByKey: faults.providerIsUniqueByKey, faults: faults, history: history)
        self.counting = CountingService(
            seed: seed, honoursKeys: faults.countingHonoursKeys, faults: faults, history: history)
    }

    // MARK: The run

    /// Sets everything up that is to happen. The scheduler does the rest.
    func begin() {
        self.scheduler.begin(seed: self.seed)
        self.database.begin(self.history, self.faults)
        self.database.crossed = { [unowned self] in self.crossed($0) }
        for line in self.faults.description { self.history.note("seed", line) }
        for number in 1...self.faults.replicas {
            let replica = Replica(number: number, world: self)
            self.replicas.append(replica)
            self.scheduler.after(self.chance.milliseconds(0, 500)) { replica.start() }
        }
        for number in 1...self.faults.sagas {
            let client = Client(number: number, world: self)
            self.clients.append(client)
            self.scheduler.after(self.faults.starts[number - 1]) { client.begin() }
        }
        for (moment, blow) in self.faults.blows { self.scheduler.after(moment) { self.strike(blow) } }
        self.scheduler.after(self.faults.storm) {
            self.history.note("seed", "THE STORM IS OVER")
            self.faults.end()
        }
    }

    private func strike(_ blow: Faults.Blow) {
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
            let started = self.clients.compactMap(\.acknowledged)
            guard !started.isEmpty else { return }
            self.database.lockRow(of: self.chance.pick(started), for: duration)
        case .clockStep(let step):
            self.anyoneTakenForDead = true
            self.database.ahead += step
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
