/// What is to go wrong in a run, drawn from its seed. A value: whoever looks for a cause takes parts out of it (`Shrinking`).
struct Plan: Sendable {
    /// Something that happens once.
    enum Blow: Sendable, CustomStringConvertible {
        case kill(replica: Int)
        /// At the nth time that something crosses between the replica and the world.
        case killAtCrossing(replica: Int, nth: Int)
        case freeze(replica: Int, Duration)
        case stop(replica: Int)
        case outage(Duration)
        case readOnly(Duration)
        case lockedRow(Duration)
        case clockStep(Duration)
        /// A saga's first event turns into something that nobody can read, until an operator mends it after the storm.
        case damage

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
            case .damage: "damage to a saga's rows"
            }
        }

        /// The one replica that it is about.
        var replica: Int? {
            switch self {
            case .kill(let replica), .killAtCrossing(let replica, _), .freeze(let replica, _), .stop(let replica):
                replica
            case .outage, .readOnly, .lockedRow, .clockStep, .damage: nil
            }
        }
    }

    /// What goes wrong again and again, with a probability.
    enum Trouble: String, CaseIterable, Sendable {
        case providerRefuses, providerLoses, undoRefuses, slowWork, answersLag
        case countingRefuses, countingLoses
        case requestLost, answerLost, stalls, holds

        /// In which themes it is at home, how many of the other seeds have it, and what its probability may be.
        var draw: (homes: Set<Theme>, isOn: Double, rates: [Double]) {
            switch self {
            case .providerRefuses: ([.provider], 0.3, [0.05, 0.2])
            case .providerLoses: ([.provider, .clocks, .doubt], 0.6, [0.1, 0.3, 0.5, 0.8])
            case .undoRefuses: ([.provider], 0.3, [0.2, 0.5])
            case .slowWork: ([.replicas, .clocks, .doubt], 0.4, [0.3, 1])
            case .answersLag: ([.provider, .doubt], 0.4, [0.2, 0.6])
            case .countingRefuses: ([.counting, .stops], 0.3, [0.1, 0.4])
            case .countingLoses: ([.counting], 0.3, [0.1, 0.3])
            case .requestLost: ([.database], 0.25, [0.002, 0.01])
            case .answerLost: ([.database], 0.35, [0.002, 0.02])
            case .stalls: ([.database, .stops], 0.3, [0.005, 0.03])
            case .holds: ([.database], 0.3, [0.02, 0.1])
            }
        }
    }

    enum Theme: String, Sendable {
        case everything, provider, counting, replicas, database
        /// Strangers lock sagas' rows, and nothing else goes wrong: nobody else may be kept waiting.
        case locks
        /// The database's clock steps while answers are awaited.
        case clocks
        /// Rows are damaged, and replicas come and go.
        case rows
        /// Creations are seldom answered, look-ups late, and deadlines are short.
        case doubt
        /// Replicas are told to stop while many sagas are under way.
        case stops

        /// All ask at once.
        var isCrowded: Bool { self == .locks || self == .rows || self == .stops || self == .clocks }

        /// As often as they come.
        static let draw: [Theme] = [
            .everything, .everything, .everything, .everything, .provider, .provider, .provider, .counting, .replicas,
            .database, .locks, .clocks, .rows, .doubt, .doubt, .stops,
        ]
    }

    struct Asking: Sendable {
        /// Who asks for a saga.
        var client: Int
        var at: Duration
    }

    struct Moment: Sendable {
        var at: Duration
        var blow: Blow
    }

    let seed: UInt64
    let theme: Theme
    var replicas: Int
    var askings: [Asking]
    /// Nothing goes wrong after it.
    let storm: Duration
    let countingHonoursKeys: Bool
    let providerIsUniqueByKey: Bool
    var rates: [Trouble: Double]
    var blows: [Moment]
    /// What was to happen by its probability, and is left out: the nth time of a trouble (`Faults.strikes`).
    var spared: Set<String> = []

    init(seed: UInt64) {
        var chance = Chance(seed: seed, stream: "faults")
        self.seed = seed
        // Each kind of trouble comes in some seeds only, and some seeds have one kind alone, so that what it causes is not
        // always drowned by the others.
        let theme = chance.pick(Theme.draw)
        self.theme = theme
        self.replicas = theme == .locks ? chance.pick([1, 1, 1, 2]) : chance.integer(1...3)
        let sagas = chance.integer(theme == .locks ? 6...10 : 3...10)
        self.countingHonoursKeys = chance.happens(theme == .stops ? 0.2 : 0.5)
        self.providerIsUniqueByKey = chance.happens(theme == .doubt ? 0.6 : theme == .clocks ? 0.1 : 0.4)
        let storm = chance.milliseconds(15_000, 40_000)
        let latest = Double(storm.nanoseconds) / 1e6
        self.storm = storm
        // One by one, or as a crowd.
        let (first, last): (Double, Double) =
            !theme.isCrowded && chance.happens(0.6) ? (1000, latest * 0.7) : (3000, 3500)
        let starts = (0..<sagas).map { _ in chance.milliseconds(first, last) }
        self.askings = starts.enumerated().map { Asking(client: $0 + 1, at: $1) }

        var rates: [Trouble: Double] = [:]
        for trouble in Trouble.allCases {
            let (homes, isOn, some) = trouble.draw
            let isHere = theme == .everything ? chance.happens(isOn) : homes.contains(theme) && chance.happens(0.8)
            let rate = chance.pick(some)
            if isHere { rates[trouble] = rate }
        }
        // What happens to a row is to happen while its saga is under way, which most are not for long.
        if theme == .locks || theme == .rows { rates[.slowWork] = 1 }
        // What is seldom answered is doubtful most of the time.
        if theme == .doubt || theme == .clocks { rates[.providerLoses] = chance.pick([0.5, 0.8]) }
        if theme == .counting { rates[.countingLoses] = chance.pick([0.1, 0.3, 0.6]) }
        self.rates = rates

        // Mostly while something is under way.
        func moment(_ chance: inout Chance) -> Duration {
            chance.happens(0.6)
                ? chance.pick(starts) + chance.milliseconds(0, 2500) : chance.milliseconds(500, latest - 1000)
        }
        var blows: [Moment] = []
        func add(_ blow: Blow, at: Duration? = nil, _ chance: inout Chance) {
            blows.append(Moment(at: at ?? moment(&chance), blow: blow))
        }
        switch theme {
        case .provider, .counting, .doubt:
            break
        case .everything, .replicas:
            Self.addReplicas(self.replicas, add, &chance)
        case .database, .locks, .clocks, .rows, .stops:
            break
        }
        if theme == .everything || theme == .database {
            let isOn = theme == .database ? 0.5 : 0.15
            if chance.happens(isOn) { add(.outage(chance.milliseconds(200, 9000)), &chance) }
            if chance.happens(isOn) { add(.readOnly(chance.milliseconds(200, 6000)), &chance) }
            if chance.happens(isOn) { add(.lockedRow(chance.milliseconds(500, 12_000)), &chance) }
            if chance.happens(0.15) { add(.clockStep(Self.step(0.7, &chance)), &chance) }
        }
        switch theme {
        case .locks:
            // Enough of them to stop every writer, if they could.
            for _ in 0..<chance.integer(2...4) {
                let lock = Blow.lockedRow(chance.milliseconds(8000, 20_000))
                add(lock, at: chance.milliseconds(3300, 4300), &chance)
            }
        case .clocks:
            for _ in 0..<chance.integer(2...4) {
                add(.clockStep(Self.step(0.9, &chance)), at: chance.milliseconds(3100, 5000), &chance)
            }
        case .rows:
            let start = chance.milliseconds(3300, 4300)
            add(.damage, at: start, &chance)
            // Only who reads it can't read it.
            for replica in 1...self.replicas {
                let blow: Blow = chance.happens(0.5) ? .kill(replica: replica) : .stop(replica: replica)
                add(blow, at: start + chance.milliseconds(1, 300), &chance)
            }
        case .stops:
            for replica in 1...self.replicas {
                for _ in 0..<chance.integer(1...3) {
                    add(.stop(replica: replica), at: chance.milliseconds(3050, 6000), &chance)
                }
            }
        case .everything, .provider, .counting, .replicas, .database, .doubt:
            break
        }
        self.blows = blows.sorted { $0.at < $1.at }
    }

    private static func addReplicas(
        _ replicas: Int, _ add: (Blow, Duration?, inout Chance) -> Void, _ chance: inout Chance
    ) {
        // A replica that was frozen is not killed later: what it sent as a zombie is its own to clear away.
        var frozen: Set<Int> = []
        if chance.happens(0.3) {
            let replica = chance.integer(1...replicas)
            frozen.insert(replica)
            add(.freeze(replica: replica, chance.milliseconds(500, 12_000)), nil, &chance)
        }
        if chance.happens(0.45) {
            for _ in 0..<chance.integer(1...2) {
                let replica = chance.integer(1...replicas)
                if frozen.contains(replica) { continue }
                let blow: Blow =
                    chance.happens(0.5)
                    ? .kill(replica: replica)
                    : .killAtCrossing(replica: replica, nth: chance.integer(1...150))
                add(blow, nil, &chance)
            }
        }
        if chance.happens(0.5) {
            for _ in 0..<chance.integer(1...3) {
                let replica = chance.integer(1...replicas)
                if frozen.contains(replica) { continue }
                add(.stop(replica: replica), nil, &chance)
            }
        }
    }

    /// How many sagas have deadlines that may pass while they wait.
    var shortDeadlines: Double { self.theme == .doubt ? 0.7 : 0.2 }

    /// - Parameter ahead: how often it goes ahead, not back.
    private static func step(_ ahead: Double, _ chance: inout Chance) -> Duration {
        let step = chance.milliseconds(1000, 30_000)
        return chance.happens(ahead) ? step : .zero - step
    }

    /// For people.
    var description: [String] {
        let rates = self.rates.sorted { $0.key.rawValue < $1.key.rawValue }.map { "\($0.key) \($0.value)" }
        let sagas = self.askings.map { "S\($0.client)" }.joined(separator: " ")
        return [
            "\(self.theme.rawValue): \(self.replicas) replicas, sagas \(sagas), storm of \(self.storm)",
            "counting \(self.countingHonoursKeys ? "honours keys" : "knows no keys"), provider "
                + (self.providerIsUniqueByKey ? "unique by key" : "not unique by key"),
            rates.isEmpty ? "no trouble by chance" : rates.joined(separator: ", "),
        ] + self.blows.map { "at \($0.at): \($0.blow)" }
    }
}
