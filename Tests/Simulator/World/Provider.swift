/// Makes things, for money: what a saga makes and forgets costs somebody until the end of time.
///
/// It answers late or never, works on after the caller has given up, refuses for a while, shows what is there only after a
/// moment. One promise it keeps: what comes of a request can be seen `settleTime` after it arrived.
///
/// Unchecked: of one thread.
final class Provider: @unchecked Sendable {
    static let settleTime = Duration.milliseconds(2500)

    struct Thing: Sendable {
        var number: Int
        var saga: String
        /// The request that made it (saga, step and generation).
        var key: String
        var generation: Int
        var visibleAt: Int64
        var goneAt: Int64?
        /// Made for a replica that others had reason to believe dead by then.
        var isOfZombie: Bool
    }

    enum Answer: Sendable {
        case made(Int)
        case found([Thing])
        case gone
        case notFound
        case refused
        case throttled
        case unavailable
        case unknown
    }

    private(set) var things: [Thing] = []
    /// One key makes one thing, as long as it is there.
    let isUniqueByKey: Bool
    private var chance: Chance
    private let faults: Faults
    private let history: History
    private let scheduler = Scheduler.shared

    init(seed: UInt64, isUniqueByKey: Bool, faults: Faults, history: History) {
        self.chance = Chance(seed: seed, stream: "provider")
        self.isUniqueByKey = isUniqueByKey
        self.faults = faults
        self.history = history
    }

    var there: Duration { self.chance.milliseconds(0.2, 3) }

    private func isVisible(_ thing: Thing) -> Bool { thing.goneAt == nil && thing.visibleAt <= self.scheduler.now }

    func create(saga: String, key: String, generation: Int, isOfZombie: @escaping () -> Bool) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 60)
        if let refusal = self.refusal(.providerRefuses) {
            self.history.note("provider", "create \(key): \(refusal), nothing made")
            return Reply(answer: refusal, after: soon)
        }
        let work =
            self.faults.strikes(.slowWork, &self.chance)
            ? self.chance.milliseconds(200, 2200) : self.chance.milliseconds(1, 80)
        if self.faults.strikes(.providerLoses, &self.chance) {
            // The answer says nothing, or never comes. Made at once, much later, or not at all.
            let isMade = self.chance.happens(0.75)
            let late = self.chance.happens(0.6) ? self.chance.milliseconds(100, 2300) : work
            self.history.note("provider", "create \(key): no answer, \(isMade ? "made after \(late)" : "never made")")
            if isMade {
                self.scheduler.after(late) { self.make(saga, key, generation, isOfZombie: isOfZombie()) }
            }
            return Reply(answer: self.chance.happens(0.7) ? .unknown : nil, after: soon)
        }
        let number = self.make(saga, key, generation, isOfZombie: isOfZombie(), lag: work)
        return Reply(answer: .made(number), after: work + self.slowness())
    }

    @discardableResult
    private func make(
        _ saga: String, _ key: String, _ generation: Int, isOfZombie: Bool, lag: Duration = .zero
    ) -> Int {
        if self.isUniqueByKey, let thing = self.things.first(where: { $0.key == key && $0.goneAt == nil }) {
            self.history.note("provider", "has thing \(thing.number) for \(key) already")
            return thing.number
        }
        let thing = Thing(
            number: self.things.count + 1, saga: saga, key: key, generation: generation,
            visibleAt: self.scheduler.now + lag.nanoseconds, goneAt: nil, isOfZombie: isOfZombie)
        self.things.append(thing)
        self.history.note("provider", "MAKES thing \(thing.number) for \(key)\(isOfZombie ? " (zombie)" : "")")
        return thing.number
    }

    func find(saga: String) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 40)
        if let refusal = self.refusal(.providerRefuses) { return Reply(answer: refusal, after: soon) }
        let found = self.things.filter { $0.saga == saga && self.isVisible($0) }
        self.history.note("provider", "find \(saga): \(found.map(\.number))")
        if self.faults.strikes(.providerLoses, share: 0.25, &self.chance) {
            return Reply(answer: self.chance.happens(0.5) ? .unknown : nil, after: soon)
        }
        return Reply(answer: .found(found), after: soon + self.slowness())
    }

    func destroy(_ number: Int) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 40)
        if let refusal = self.refusal(.undoRefuses) {
            self.history.note("provider", "destroy thing \(number): \(refusal)")
            return Reply(answer: refusal, after: soon)
        }
        let isLost = self.faults.strikes(.providerLoses, share: 0.5, &self.chance)
        if isLost, self.chance.happens(0.3) {
            self.history.note("provider", "destroy thing \(number): lost")
            return Reply(answer: nil, after: soon)
        }
        guard let index = self.things.firstIndex(where: { $0.number == number && self.isVisible($0) }) else {
            self.history.note("provider", "destroy thing \(number): not there")
            return Reply(answer: isLost ? nil : .notFound, after: soon)
        }
        self.things[index].goneAt = self.scheduler.now
        self.history.note("provider", "DESTROYS thing \(number)")
        return Reply(answer: isLost ? nil : .gone, after: soon + self.slowness())
    }

    /// START: anybody may say it any number of times.
    func start(_ number: Int) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 100)
        if let refusal = self.refusal(.providerRefuses) { return Reply(answer: refusal, after: soon) }
        if self.faults.strikes(.providerLoses, &self.chance) { return Reply(answer: nil, after: soon) }
        return Reply(answer: .made(number), after: soon + self.slowness())
    }

    private func refusal(_ trouble: Plan.Trouble) -> Answer? {
        guard self.faults.strikes(trouble, &self.chance) else { return nil }
        return self.chance.pick([.refused, .throttled, .unavailable, .unavailable])
    }

    /// Sometimes an answer is long on its way: longer than a settle time.
    private func slowness() -> Duration {
        self.faults.strikes(.answersLag, &self.chance) ? self.chance.milliseconds(500, 3900) : .zero
    }
}
