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

    enum Theme: String {
        case everything, provider, counting, replicas, database

        /// As often as they come.
        static let draw: [Theme] = [
            .everything, .everything, .everything, .everything, .provider, .provider, .provider, .counting, .replicas,
            .database,
        ]
    }

    /// Rates: in which theme they are at home, how many of the other seeds have them, and what they may be.
    private static let troubles: [(name: String, home: Theme, isOn: Double, rates: [Double])] = [
        ("providerRefuses", .provider, 0.3, [0.05, 0.2]), ("providerLoses", .provider, 0.6, [0.1, 0.3, 0.5, 0.8]),
        ("undoRefuses", .provider, 0.3, [0.2, 0.5]), ("slowWork", .replicas, 0.4, [0.3, 1]),
        ("answersLag", .provider, 0.4, [0.2, 0.6]), ("countingRefuses", .counting, 0.3, [0.1, 0.4]),
        ("countingLoses", .counting, 0.3, [0.1, 0.3]), ("requestLost", .database, 0.25, [0.002, 0.01]),
        ("answerLost", .database, 0.35, [0.002, 0.02]), ("stalls", .database, 0.3, [0.005, 0.03]),
        ("holds", .database, 0.3, [0.02, 0.1]),
    ]

    let theme: Theme
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

        // Each kind of trouble comes in some seeds only, and some seeds have one kind alone, so that what it causes is not
        // always drowned by the others.
        let theme = chance.pick(Theme.draw)
        self.theme = theme
        var rates: [String: Double] = [:]
        for (name, home, isOn, some) in Self.troubles {
            let isHere = theme == .everything ? chance.happens(isOn) : theme == home && chance.happens(0.8)
            let value = chance.pick(some)
            rates[name] = isHere ? value : 0
        }
        self.rates = rates

        // Mostly while something is under way.
        let starts = self.starts
        func moment(_ chance: inout Chance) -> Duration {
            chance.happens(0.6)
                ? chance.pick(starts) + chance.milliseconds(0, 2500) : chance.milliseconds(500, latest - 1000)
        }
        var blows: [(at: Duration, blow: Blow)] = []
        // A replica that was frozen is not killed later: what it sent as a zombie is its own to clear away.
        var frozen: Set<Int> = []
        if theme == .everything || theme == .replicas {
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
            if chance.happens(0.5) {
                for _ in 0..<chance.integer(1...3) {
                    let replica = chance.integer(1...self.replicas)
                    if frozen.contains(replica) { continue }
                    blows.append((moment(&chance), .stop(replica: replica)))
                }
            }
        }
        if theme == .everything || theme == .database {
            let isOn = theme == .database ? 0.5 : 0.15
            if chance.happens(isOn) { blows.append((moment(&chance), .outage(chance.milliseconds(200, 9000)))) }
            if chance.happens(isOn) { blows.append((moment(&chance), .readOnly(chance.milliseconds(200, 6000)))) }
            if chance.happens(isOn) { blows.append((moment(&chance), .lockedRow(chance.milliseconds(500, 12_000)))) }
            if chance.happens(0.15) {
                let step = chance.milliseconds(1000, 30_000)
                blows.append((moment(&chance), .clockStep(chance.happens(0.7) ? step : .zero - step)))
            }
        }
        self.blows = blows.sorted { $0.at < $1.at }
        self.chance = chance
    }

    /// What this run has in store, for people.
    var description: [String] {
        let rates = self.rates.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        return [
            "\(self.theme.rawValue): \(self.replicas) replicas, \(self.sagas) sagas, storm of \(self.storm)",
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
        if self.chance.happens(self.rate("holds")) { fate.hold = self.chance.milliseconds(50, 8000) }
        fate.isLostBefore = self.chance.happens(self.rate("requestLost"))
        fate.isLostAfter = !fate.isLostBefore && self.chance.happens(self.rate("answerLost"))
        return fate
    }
}
