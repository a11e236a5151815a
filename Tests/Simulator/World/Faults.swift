/// What goes wrong in a run: how often, and when. All of it ends with the storm; from then on everything must come right.
///
/// Unchecked: of one thread.
final class Faults: @unchecked Sendable {
    /// Something that happens once.
    enum Blow: CustomStringConvertible {
        case kill(replica: Int)
        /// At the nth time that something crosses between the replica and the world.
        case killAtCrossing(replica: Int, nth: Int)
        case freeze(replica: Int, Duration)
        case stop(replica: Int)
        case outage(Duration)
        case readOnly(Duration)
        case lockedRow(Duration)
        case clockStep(Duration)

        var description: String {
            switch self {
            case .kill(let replica): "kill r\(replica)"
            case .killAtCrossing(let replica, let nth): "kill r\(replica) at its crossing \(nth)"
            case .freeze(let replica, let duration): "freeze r\(replica) for \(duration)"
            case .stop(let replica): "stop r\(replica)"
            case .outage(let duration): "database down for \(duration)"
            case .readOnly(let duration): "database read-only for \(duration)"
            case .lockedRow(let duration): "a locked row for \(duration)"
            case .clockStep(let duration): "the database's clock steps by \(duration)"
            }
        }
    }

    let replicas: Int
    let sagas: Int
    /// Nothing goes wrong after it.
    let storm: Duration
    let countingHonoursKeys: Bool
    let providerIsUniqueByKey: Bool
    let blows: [(at: Duration, blow: Blow)]
    /// When each client asks first.
    let starts: [Duration]

    private(set) var isOver = false
    private var chance: Chance
    private var rates: [String: Double] = [:]

    init(seed: UInt64) {
        var chance = Chance(seed: seed, stream: "faults")
        self.replicas = chance.integer(1...3)
        self.sagas = chance.integer(3...10)
        self.countingHonoursKeys = chance.happens(0.5)
        self.providerIsUniqueByKey = chance.happens(0.4)
        let storm = chance.milliseconds(15_000, 40_000)
        let latest = Double(storm.nanoseconds) / 1e6
        self.storm = storm
        // One by one, or as a crowd.
        let (first, last): (Double, Double) = chance.happens(0.6) ? (1000, latest * 0.7) : (3000, 3500)
        self.starts = (0..<self.sagas).map { _ in chance.milliseconds(first, last) }

        // Each kind of trouble comes in some seeds only, so that what it causes is not always drowned by the others.
        func rate(_ name: String, _ isOn: Double, _ rates: [Double], _ chance: inout Chance) -> (String, Double) {
            (name, chance.happens(isOn) ? chance.pick(rates) : 0)
        }
        var rates: [String: Double] = [:]
        for (name, isOn, some) in [
            ("providerRefuses", 0.3, [0.05, 0.2]), ("providerLoses", 0.6, [0.1, 0.3, 0.5, 0.8]),
            ("undoRefuses", 0.3, [0.2, 0.5]), ("slowWork", 0.4, [0.3, 1]), ("answersLag", 0.4, [0.1, 0.4]),
            ("countingRefuses", 0.3, [0.1, 0.4]),
            ("countingLoses", 0.3, [0.1, 0.3]), ("requestLost", 0.25, [0.002, 0.01]),
            ("answerLost", 0.35, [0.002, 0.02]), ("stalls", 0.3, [0.005, 0.03]),
        ] as [(String, Double, [Double])] {
            let (name, value) = rate(name, isOn, some, &chance)
            rates[name] = value
        }
        self.rates = rates

        var blows: [(at: Duration, blow: Blow)] = []
        // Mostly while something is under way.
        let starts = self.starts
        func moment(_ chance: inout Chance) -> Duration {
            chance.happens(0.6)
                ? chance.pick(starts) + chance.milliseconds(0, 2500) : chance.milliseconds(500, latest - 1000)
        }
        // A replica that was frozen is not killed later: what it sent as a zombie is its own to clear away.
        var frozen: Set<Int> = []
        if chance.happens(0.3) {
            let replica = chance.integer(1...self.replicas)
            frozen.insert(replica)
            blows.append((moment(&chance), .freeze(replica: replica, chance.milliseconds(500, 12_000))))
        }
        if chance.happens(0.45) {
            for _ in 0..<chance.integer(1...2) {
                let replica = chance.integer(1...self.replicas)
                if frozen.contains(replica) { continue }
                let blow: Blow =
                    chance.happens(0.5)
                    ? .kill(replica: replica)
                    : .killAtCrossing(replica: replica, nth: chance.integer(1...150))
                blows.append((moment(&chance), blow))
            }
        }
        if chance.happens(0.45) {
            for _ in 0..<chance.integer(1...3) {
                let replica = chance.integer(1...self.replicas)
                if frozen.contains(replica) { continue }
                blows.append((moment(&chance), .stop(replica: replica)))
            }
        }
        if chance.happens(0.15) { blows.append((moment(&chance), .outage(chance.milliseconds(200, 9000)))) }
        if chance.happens(0.15) { blows.append((moment(&chance), .readOnly(chance.milliseconds(200, 6000)))) }
        if chance.happens(0.15) { blows.append((moment(&chance), .lockedRow(chance.milliseconds(500, 12_000)))) }
        if chance.happens(0.15) {
            let step = chance.milliseconds(1000, 30_000)
            blows.append((moment(&chance), .clockStep(chance.happens(0.7) ? step : .zero - step)))
        }
        self.blows = blows.sorted { $0.at < $1.at }
        self.chance = chance
    }

    /// What this run has in store, for people.
    var description: [String] {
        let rates = self.rates.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        return [
            "\(self.replicas) replicas, \(self.sagas) sagas, storm of \(self.storm)",
            "counting \(self.countingHonoursKeys ? "honours keys" : "knows no keys"), provider "
                + (self.providerIsUniqueByKey ? "unique by key" : "not unique by key"),
            rates.joined(separator: ", "),
        ] + self.blows.map { "at \($0.at): \($0.blow)" }
    }

    func end() { self.isOver = true }

    private func rate(_ name: String) -> Double { self.isOver ? 0 : self.rates[name] ?? 0 }

    var providerRefuses: Double { self.rate("providerRefuses") }
    var providerLoses: Double { self.rate("providerLoses") }
    var undoRefuses: Double { self.rate("undoRefuses") }
    var slowWork: Double { self.rate("slowWork") }
    var answersLag: Double { self.rate("answersLag") }
    var countingRefuses: Double { self.rate("countingRefuses") }
    var countingLoses: Double { self.rate("countingLoses") }

    /// On the way to the database or back.
    func delay() -> Duration { self.chance.milliseconds(0.05, 0.8) }

    func requestFate() -> RequestFate {
        var fate = RequestFate(there: self.delay(), back: self.delay())
        if self.chance.happens(self.rate("stalls")) {
            let stall = self.chance.milliseconds(100, 4000)
            if self.chance.happens(0.5) { fate.there += stall } else { fate.back += stall }
        }
        fate.isLostBefore = self.chance.happens(self.rate("requestLost"))
        fate.isLostAfter = !fate.isLostBefore && self.chance.happens(self.rate("answerLost"))
        return fate
    }
}
