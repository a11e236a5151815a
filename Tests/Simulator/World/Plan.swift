@testable import SagaRuntime

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
        /// At the nth request of this kind: half the time the request is lost with it.
        case killAtRequest(replica: Int, Request, nth: Int)
        /// Some saga is given a command. Whether the answer comes back is chance.
        case command(SagaCommand.Kind)
        /// A saga that is awake is given one at the nth request of this kind, of any replica's.
        case commandAtRequest(SagaCommand.Kind, Request, nth: Int)
        /// A provider answers everything with "unavailable".
        case providerDown(site: String, Duration)
        /// A replica can't call a site for a while, and says so.
        case unserved(replica: Int, site: String, Duration)

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
            case .killAtRequest(let replica, let request, let nth): "kill r\(replica) at its \(request.rawValue) \(nth)"
            case .command(let kind): "command \(kind.rawValue)"
            case .commandAtRequest(let kind, let request, let nth):
                "command \(kind.rawValue) at \(request.rawValue) \(nth) of all"
            case .providerDown(let site, let duration): "provider \(site) down for \(duration)"
            case .unserved(let replica, let site, let duration): "r\(replica) can't call \(site) for \(duration)"
            }
        }

        /// How long it goes on.
        var lasts: Duration {
            switch self {
            case .freeze(_, let duration), .outage(let duration), .readOnly(let duration), .lockedRow(let duration),
                .providerDown(_, let duration), .unserved(_, _, let duration):
                duration
            case .kill, .killAtCrossing, .stop, .clockStep, .damage, .killAtRequest, .command, .commandAtRequest: .zero
            }
        }

        /// The one replica that it is about.
        var replica: Int? {
            switch self {
            case .kill(let replica), .killAtCrossing(let replica, _), .freeze(let replica, _), .stop(let replica),
                .killAtRequest(let replica, _, _), .unserved(let replica, _, _):
                replica
            case .outage, .readOnly, .lockedRow, .clockStep, .damage, .command, .commandAtRequest,
                .providerDown:
                nil
            }
        }
    }

    /// Requests at which dying is worth a try, by the ends of their statements' names.
    enum Request: String, Sendable {
        case sleep = "_sleep"
        case wake = "_wake"
        case command = "saga_command_issue"
    }

    /// What the saga is like, and what surrounds it.
    struct Traits: Sendable {
        /// Its definition sleeps.
        var sleeps = false
        /// The provider makes some things by jobs.
        var hasJobs = false
        /// They take long, and a saga sleeps through many polls.
        var hasLongJobs = false
        /// START is the pivot.
        var hasPivot = false
        /// After the storm an operator commands what is parked.
        var hasOperator = false
        /// Where things can be made.
        var sites = ["west"]
        /// What each replica can call.
        var served: [Set<String>] = []
        /// Sagas that a replica drives at once; `nil`: any number.
        var maximumInFlight: Int?
        /// Connections that a replica has to a provider; what calls waits for one. `nil`: any number.
        var connections: Int?
        /// Calls under way at a provider, as the engine is told; `nil`: any number.
        var limit: Int?
    }

    /// What goes wrong again and again, with a probability.
    enum Trouble: String, CaseIterable, Sendable {
        case providerRefuses, providerLoses, undoRefuses, slowWork, answersLag
        case countingRefuses, countingLoses
        case requestLost, answerLost, stalls, holds
        case jobsFail

        /// In which themes it is at home, how many of the other seeds have it, and what its probability may be.
        var draw: (homes: Set<Theme>, isOn: Double, rates: [Double]) {
            switch self {
            case .providerRefuses: ([.provider, .jobs], 0.3, [0.05, 0.2])
            case .providerLoses: ([.provider, .clocks, .doubt, .jobs, .asleep], 0.6, [0.1, 0.3, 0.5, 0.8])
            case .undoRefuses: ([.provider, .jobs], 0.3, [0.2, 0.5])
            case .slowWork: ([.replicas, .clocks, .doubt, .commands], 0.4, [0.3, 1])
            case .answersLag: ([.provider, .doubt, .jobs], 0.4, [0.2, 0.6])
            case .countingRefuses: ([.counting, .stops], 0.3, [0.1, 0.4])
            case .countingLoses: ([.counting, .commands], 0.3, [0.1, 0.3])
            case .requestLost: ([.database], 0.25, [0.002, 0.01])
            case .answerLost: ([.database], 0.35, [0.002, 0.02])
            case .stalls: ([.database, .stops], 0.3, [0.005, 0.03])
            case .holds: ([.database], 0.3, [0.02, 0.1])
            case .jobsFail: ([.jobs], 0.5, [0.1, 0.3])
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
        /// Undos wait for a provider that is down for most of the storm, and few may be under way.
        case asleep
        /// Sagas are commanded while they wait for a provider.
        case commands
        /// What the provider makes takes seconds.
        case jobs
        /// Two providers, and replicas that can't call both.
        case sites
        /// All at once want a provider that takes few calls at a time, and slowly. Nothing goes wrong.
        case queue

        /// All ask at once.
        var isCrowded: Bool { self == .locks || self == .rows || self == .stops || self == .clocks }

        /// As often as they come.
        static let draw: [Theme] = [
            .everything, .everything, .everything, .everything, .provider, .provider, .provider, .counting, .replicas,
            .database, .locks, .clocks, .rows, .doubt, .doubt, .stops,
        ]
        /// A third of the seeds has one of these instead.
        static let second: [Theme] = [.asleep, .commands, .jobs, .sites, .queue]
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
    var traits: Traits
    var rates: [Trouble: Double]
    var blows: [Moment]
    /// What was to happen by its probability, and is left out: the nth time of a trouble (`Faults.strikes`).
    var spared: Set<String> = []

    init(seed: UInt64) {
        var chance = Chance(seed: seed, stream: "faults")
        self.seed = seed
        // Each kind of trouble comes in some seeds only, and some seeds have one kind alone, so that what it causes is not
        // always drowned by the others.
        // What came later draws from a stream of its own.
        var kinds = Chance(seed: seed, stream: "kinds")
        let early = chance.pick(Theme.draw)
        let theme = kinds.happens(0.33) ? kinds.pick(Theme.second) : early
        self.theme = theme
        let replicas = theme == .locks ? chance.pick([1, 1, 1, 2]) : chance.integer(1...3)
        self.replicas = theme == .sites ? max(2, replicas) : theme == .queue ? 1 : replicas
        let sagas = chance.integer(theme == .locks ? 6...10 : 3...10)
        self.countingHonoursKeys = chance.happens(theme == .stops ? 0.2 : 0.5)
        self.providerIsUniqueByKey = chance.happens(theme == .doubt ? 0.6 : theme == .clocks ? 0.1 : 0.4)
        let storm = chance.milliseconds(15_000, 40_000)
        let latest = Double(storm.nanoseconds) / 1e6
        // One by one, or as a crowd.
        let (first, last): (Double, Double) =
            !theme.isCrowded && chance.happens(0.6) ? (1000, latest * 0.7) : (3000, 3500)
        var starts = (0..<sagas).map { _ in chance.milliseconds(first, last) }
        let traits = Self.traits(theme, replicas: self.replicas, &kinds)

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
        case .database, .locks, .clocks, .rows, .stops, .asleep, .commands, .jobs, .sites, .queue:
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
        case .everything, .provider, .counting, .replicas, .database, .doubt, .asleep, .commands, .jobs, .sites, .queue:
            break
        }
        // From here on only what came later.
        let isCrowd = theme == .asleep && traits.maximumInFlight != nil
        if isCrowd { starts = Self.waves(&kinds) }
        if theme == .queue {
            // No more than there are seats.
            starts = (0..<kinds.integer(5...6)).map { _ in kinds.milliseconds(3000, 3300) }
            self.rates = [.slowWork: 1]
        }
        self.storm = isCrowd ? .seconds(36) : storm
        self.askings = starts.enumerated().map { Asking(client: $0 + 1, at: $1) }
        if isCrowd {
            // What they make is there when the provider goes down, and not yet started.
            self.rates = [.slowWork: 1]
            self.replicas = 1
        }
        var frozen: Set<Int> = []
        for moment in blows { if case .freeze(let replica, _) = moment.blow { frozen.insert(replica) } }
        Self.addLater(theme, traits, mortal: (1...self.replicas).filter { !frozen.contains($0) }, starts, add, &kinds)
        self.traits = traits
        self.blows = blows.sorted { $0.at < $1.at }
    }

    private static func traits(_ theme: Theme, replicas: Int, _ chance: inout Chance) -> Traits {
        var traits = Traits()
        // Of the themes that came first, some stay as they are: what they show needs sagas that hurry.
        let isMixed = ![.locks, .rows, .database].contains(theme)
        let sleeps = [Theme.asleep: 1, .commands: 0.8, .clocks: 0.6, .jobs: 0.7]
        traits.sleeps = chance.happens(sleeps[theme] ?? (isMixed ? 0.5 : 0))
        traits.hasJobs = chance.happens(theme == .jobs ? 1 : [.everything, .asleep, .sites].contains(theme) ? 0.3 : 0)
        traits.hasLongJobs = theme == .jobs && traits.sleeps && chance.happens(0.5)
        traits.hasPivot = chance.happens(theme == .commands ? 0.4 : theme == .everything ? 0.2 : 0)
        traits.hasOperator = chance.happens(
            theme == .commands ? 1 : [.counting, .everything, .stops].contains(theme) ? 0.3 : 0)
        if chance.happens(theme == .sites ? 1 : [.everything, .replicas, .stops].contains(theme) ? 0.2 : 0) {
            traits.sites = ["west", "east"]
        }
        if theme == .asleep, chance.happens(0.5) { traits.maximumInFlight = chance.integer(3...4) }
        if theme == .queue {
            traits.connections = chance.pick([nil, 1, 1, 1])
            traits.limit = traits.connections == nil || chance.happens(0.2) ? chance.integer(1...2) : nil
        }
        traits.served = (0..<replicas).map { number in
            let all = Set(traits.sites)
            if all.count == 1 || number == 0 && replicas == 1 { return all }
            // The first two cover all.
            let one = traits.sites[number % 2]
            return chance.happens(number == 0 ? 0.2 : 0.4) ? all : [one]
        }
        return traits
    }

    /// Some early, and some who come when those wait for a provider that is down.
    private static func waves(_ chance: inout Chance) -> [Duration] {
        (0..<chance.integer(5...6)).map { _ in chance.milliseconds(1500, 2300) }
            + (0..<chance.integer(2...3)).map { _ in chance.milliseconds(19_000, 25_000) }
    }

    private static func addLater(
        _ theme: Theme, _ traits: Traits, mortal: [Int], _ starts: [Duration],
        _ add: (Blow, Duration?, inout Chance) -> Void, _ chance: inout Chance
    ) {
        func soon(_ chance: inout Chance, _ lower: Double = 0, _ upper: Double = 4000) -> Duration {
            chance.pick(starts) + chance.milliseconds(lower, upper)
        }
        func site(_ chance: inout Chance) -> String { chance.pick(traits.sites) }
        /// Replicas come and go, most often where it matters.
        func addDeaths(_ probability: Double, _ chance: inout Chance) {
            for replica in mortal where chance.happens(probability) {
                let kind = chance.pick([Request.sleep, .wake, .wake])
                let blow: Blow =
                    chance.happens(0.5) && traits.sleeps
                    ? .killAtRequest(replica: replica, kind, nth: chance.integer(1...4))
                    : chance.happens(0.5) ? .kill(replica: replica) : .stop(replica: replica)
                let isAtRequest = if case .killAtRequest = blow { true } else { false }
                add(blow, isAtRequest ? .milliseconds(500) : soon(&chance, 300, 8000), &chance)
            }
        }
        let kinds: [SagaCommand.Kind] = [.cancel, .cancel, .cancel, .compensate, .resume, .resume, .skip]
        switch theme {
        case .asleep:
            if traits.maximumInFlight != nil {
                add(.providerDown(site: site(&chance), .seconds(30)), chance.milliseconds(2200, 2600), &chance)
                return
            }
            add(
                .providerDown(site: site(&chance), chance.milliseconds(5000, 20_000)), soon(&chance, 0, 1500), &chance)
            addDeaths(0.6, &chance)
            if chance.happens(0.5) { add(.clockStep(Self.step(0.8, &chance)), soon(&chance, 500, 8000), &chance) }
        case .commands:
            if chance.happens(0.85) {
                add(
                    .providerDown(site: site(&chance), chance.milliseconds(12_000, 25_000)), soon(&chance, 0, 1500),
                    &chance)
            }
            for _ in 0..<chance.integer(4...12) {
                add(.command(chance.pick(kinds)), soon(&chance, 0, 7000), &chance)
            }
            if traits.sleeps {
                for _ in 0..<chance.integer(2...7) {
                    let request = chance.pick([Request.sleep, .sleep, .wake])
                    add(
                        .commandAtRequest(chance.pick(kinds), request, nth: chance.integer(1...20)),
                        .milliseconds(500), &chance)
                }
            }
            if chance.happens(0.5) { addDeaths(0.5, &chance) }
            if chance.happens(0.2) {
                add(
                    .killAtRequest(
                        replica: chance.pick(mortal), .command, nth: chance.integer(1...3)),
                    .milliseconds(500), &chance)
            }
        case .jobs:
            if chance.happens(0.4) {
                add(.providerDown(site: site(&chance), chance.milliseconds(1000, 8000)), soon(&chance), &chance)
            }
            if chance.happens(0.6) { addDeaths(0.5, &chance) }
            if chance.happens(0.4) {
                for _ in 0..<3 { add(.command(.cancel), soon(&chance, 200, 5000), &chance) }
            }
        case .sites:
            if chance.happens(0.6) {
                add(.providerDown(site: site(&chance), chance.milliseconds(2000, 15_000)), soon(&chance), &chance)
            }
            if chance.happens(0.6) {
                let replica = chance.pick(mortal)
                for site in traits.served[replica - 1].sorted() where chance.happens(0.7) {
                    add(
                        .unserved(replica: replica, site: site, chance.milliseconds(2000, 15_000)), soon(&chance),
                        &chance)
                }
            }
            addDeaths(0.6, &chance)
            if chance.happens(0.3) { add(.command(.cancel), soon(&chance), &chance) }
        case .everything, .provider, .counting, .replicas, .doubt, .stops, .clocks:
            if traits.sleeps, theme == .everything || theme == .replicas { addDeaths(0.25, &chance) }
            if traits.sleeps, theme != .clocks, chance.happens(0.2) {
                add(.clockStep(Self.step(0.8, &chance)), soon(&chance), &chance)
            }
            if traits.hasOperator || theme == .everything && chance.happens(0.3) {
                for _ in 0..<chance.integer(1...4) { add(.command(chance.pick(kinds)), soon(&chance), &chance) }
            }
        case .database, .locks, .rows, .queue:
            break
        }
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
    var shortDeadlines: Double {
        switch self.theme {
        case .doubt: 0.7
        case .jobs, .clocks: 0.4
        case .queue: 0
        default: 0.2
        }
    }

    /// From then on nothing happens but what comes by chance.
    var isQuietFrom: Duration {
        max(
            self.blows.map { $0.at + $0.blow.lasts }.max() ?? .zero, self.askings.map(\.at).max() ?? .zero)
    }

    /// Nothing but commands, deaths of nobody, and a provider that is down: a command is consumed soon.
    var isPrompt: Bool {
        self.theme == .commands && self.blows.allSatisfy { $0.blow.replica == nil }
    }

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
            "the saga \(self.traits.sleeps ? "sleeps" : "stays awake")"
                + (self.traits.hasJobs ? ", makes things by jobs" : "") + (self.traits.hasPivot ? ", has a pivot" : "")
                + (self.traits.sites.count > 1
                    ? ", replicas call "
                        + self.traits.served.map { $0.sorted().joined(separator: "+") }.joined(separator: ", ")
                    : "")
                + (self.traits.maximumInFlight.map { ", at most \($0) at once" } ?? "")
                + (self.traits.connections.map { ", \($0) connections each" } ?? "")
                + (self.traits.limit.map { ", \($0) calls each" } ?? ""),
            rates.isEmpty ? "no trouble by chance" : rates.joined(separator: ", "),
        ] + self.blows.map { "at \($0.at): \($0.blow)" }
    }
}
