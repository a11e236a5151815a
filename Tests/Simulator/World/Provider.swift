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
        /// The job that made it.
        var job: Int?
    }

    /// Makes a thing, later, unless it is cancelled or fails.
    struct Job: Sendable {
        var number: Int
        var saga: String
        var key: String
        var generation: Int
        /// Half of it is done then; some never say so.
        var halfAt: Int64
        var isCancelled = false
        var isOver = false
        var made: Int?
    }

    enum Answer: Sendable {
        case made(Int)
        /// The job is under way.
        case accepted(Int, isHalfDone: Bool)
        case found([Thing], [Job])
        case gone
        case notFound
        case refused
        case throttled
        case unavailable
        case unknown
    }

    /// Where it is.
    let name: String
    private(set) var things: [Thing] = []
    private var jobs: [Job] = []
    private let makesJobs: Bool
    /// It answers nobody.
    private(set) var isDown = false
    private let firstNumber: Int
    /// One key makes one thing, as long as it is there.
    let isUniqueByKey: Bool
    private var chance: Chance
    private let faults: Faults
    private let history: History
    private let scheduler = Scheduler.shared

    init(
        _ name: String, _ index: Int, seed: UInt64, isUniqueByKey: Bool, makesJobs: Bool, faults: Faults,
        history: History
    ) {
        self.name = name
        // Numbers are nobody else's.
        self.firstNumber = 1 + 100 * index
        self.makesJobs = makesJobs
        self.chance = Chance(seed: seed, stream: index == 0 ? "provider" : "provider \(name)")
        self.isUniqueByKey = isUniqueByKey
        self.faults = faults
        self.history = history
    }

    /// Something may come of a job.
    var isAtWork: Bool { self.jobs.contains { !$0.isOver } }

    func turn(isDown: Bool) {
        self.isDown = isDown
        self.history.note("provider", "\(self.name) IS \(isDown ? "DOWN" : "BACK")")
    }

    var there: Duration { self.chance.milliseconds(0.2, 3) }

    private func isVisible(_ thing: Thing) -> Bool { thing.goneAt == nil && thing.visibleAt <= self.scheduler.now }

    func create(saga: String, key: String, generation: Int, isOfZombie: @escaping () -> Bool) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 60)
        if self.isDown { return self.isAway("create \(key)") }
        if let refusal = self.refusal(.providerRefuses) {
            self.history.note("provider", "create \(key): \(refusal), nothing made")
            return Reply(answer: refusal, after: soon)
        }
        let work =
            self.faults.strikes(.slowWork, &self.chance)
            ? self.chance.milliseconds(self.faults.plan.theme == .queue ? 1200 : 200, 2200)
            : self.chance.milliseconds(1, 80)
        if self.faults.strikes(.providerLoses, &self.chance) {
            // The answer says nothing, or never comes. Made at once, much later, or not at all.
            let isMade = self.chance.happens(0.75)
            let late = self.chance.happens(0.6) ? self.chance.milliseconds(100, 2300) : work
            self.history.note("provider", "create \(key): no answer, \(isMade ? "made after \(late)" : "never made")")
            let isJob = self.makesJobs && self.chance.happens(0.6)
            if isMade {
                self.scheduler.after(late) {
                    if isJob, !self.has(key) {
                        if self.job(for: key) == nil { self.begin(saga, key, generation, isOfZombie: isOfZombie()) }
                    } else {
                        self.make(saga, key, generation, isOfZombie: isOfZombie())
                    }
                }
            }
            return Reply(answer: self.chance.happens(0.7) ? .unknown : nil, after: soon)
        }
        if let job = self.job(for: key) { return Reply(answer: self.progress(job), after: soon) }
        if self.makesJobs, self.chance.happens(0.6), !self.has(key) {
            let job = self.begin(saga, key, generation, isOfZombie: isOfZombie())
            return Reply(answer: self.progress(job), after: soon + self.slowness())
        }
        let number = self.make(saga, key, generation, isOfZombie: isOfZombie(), lag: work)
        return Reply(answer: .made(number), after: work + self.slowness())
    }

    @discardableResult
    private func make(
        _ saga: String, _ key: String, _ generation: Int, isOfZombie: Bool, lag: Duration = .zero, job: Int? = nil
    ) -> Int {
        if self.isUniqueByKey, let thing = self.things.first(where: { $0.key == key && $0.goneAt == nil }) {
            self.history.note("provider", "has thing \(thing.number) for \(key) already")
            return thing.number
        }
        let thing = Thing(
            number: self.things.count + self.firstNumber, saga: saga, key: key, generation: generation,
            visibleAt: self.scheduler.now + lag.nanoseconds, goneAt: nil, isOfZombie: isOfZombie, job: job)
        self.things.append(thing)
        self.history.note("provider", "MAKES thing \(thing.number) for \(key)\(isOfZombie ? " (zombie)" : "")")
        return thing.number
    }

    func find(saga: String) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 40)
        if let refusal = self.refusal(.providerRefuses) { return Reply(answer: refusal, after: soon) }
        if self.isDown { return self.isAway("find \(saga)") }
        let found = self.things.filter { $0.saga == saga && self.isVisible($0) }
        let jobs = self.jobs.filter { $0.saga == saga && !$0.isOver }
        let rest = jobs.isEmpty ? "" : ", jobs \(jobs.map(\.number))"
        self.history.note("provider", "find \(saga): \(found.map(\.number))\(rest)")
        if self.faults.strikes(.providerLoses, share: 0.25, &self.chance) {
            return Reply(answer: self.chance.happens(0.5) ? .unknown : nil, after: soon)
        }
        return Reply(answer: .found(found, jobs), after: soon + self.slowness())
    }

    func destroy(_ number: Int) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 40)
        if self.isDown { return self.isAway("destroy thing \(number)") }
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
        if self.isDown { return self.isAway("start \(number)") }
        if let refusal = self.refusal(.providerRefuses) { return Reply(answer: refusal, after: soon) }
        if self.faults.strikes(.providerLoses, &self.chance) { return Reply(answer: nil, after: soon) }
        return Reply(answer: .made(number), after: soon + self.slowness())
    }

    // MARK: Jobs

    private func has(_ key: String) -> Bool {
        self.isUniqueByKey && self.things.contains { $0.key == key && $0.goneAt == nil }
    }

    private func job(for key: String) -> Job? {
        self.isUniqueByKey ? self.jobs.first { $0.key == key && !$0.isOver } : nil
    }

    private func progress(_ job: Job) -> Answer { .accepted(job.number, isHalfDone: self.scheduler.now >= job.halfAt) }

    @discardableResult
    private func begin(_ saga: String, _ key: String, _ generation: Int, isOfZombie: Bool) -> Job {
        let isLong = self.faults.plan.traits.hasLongJobs
        let length = isLong ? self.chance.milliseconds(9000, 18_000) : self.chance.milliseconds(300, 7000)
        let saysHalf = !isLong && self.chance.happens(0.6)
        let job = Job(
            number: self.jobs.count + self.firstNumber, saga: saga, key: key, generation: generation,
            halfAt: saysHalf ? self.scheduler.now + length.nanoseconds / 2 : .max)
        self.jobs.append(job)
        self.history.note("provider", "BEGINS job \(job.number) for \(key), for \(length)")
        self.scheduler.after(length) { self.end(job.number, isOfZombie: isOfZombie) }
        return job
    }

    private func end(_ number: Int, isOfZombie: Bool) {
        let index = number - self.firstNumber
        let job = self.jobs[index]
        if job.isOver { return }
        self.jobs[index].isOver = true
        // A cancelled one is often too far to leave nothing, and so is one that fails.
        let fails = job.isCancelled || self.faults.strikes(.jobsFail, &self.chance)
        let isMade = !fails || self.chance.happens(0.5)
        self.history.note("provider", "job \(number) \(fails ? "ends without success" : "is done")")
        if isMade {
            let thing = self.make(
                job.saga, job.key, job.generation, isOfZombie: isOfZombie, job: number)
            if !fails { self.jobs[index].made = thing }
        }
    }

    /// How far a job is.
    func poll(_ number: Int) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 40)
        if self.isDown { return self.isAway("poll \(number)") }
        if self.faults.strikes(.providerRefuses, &self.chance) {
            return Reply(answer: self.chance.pick([.throttled, .unavailable]), after: soon)
        }
        if self.faults.strikes(.providerLoses, share: 0.25, &self.chance) {
            return Reply(answer: self.chance.happens(0.5) ? .unknown : nil, after: soon)
        }
        let job = self.jobs[number - self.firstNumber]
        let answer: Answer = job.isOver ? job.made.map { .made($0) } ?? .refused : self.progress(job)
        self.history.note("provider", "poll job \(number): \(answer)")
        return Reply(answer: answer, after: soon + self.slowness())
    }

    /// `gone`: it is over. What it made is another matter.
    func cancel(_ number: Int) -> Reply<Answer> {
        let soon = self.chance.milliseconds(1, 40)
        if self.isDown { return self.isAway("cancel \(number)") }
        if self.faults.strikes(.undoRefuses, &self.chance) {
            return Reply(answer: self.chance.pick([.throttled, .unavailable]), after: soon)
        }
        let index = number - self.firstNumber
        if !self.jobs[index].isOver, !self.jobs[index].isCancelled {
            self.jobs[index].isCancelled = true
            self.scheduler.after(self.chance.milliseconds(50, 2500)) { self.end(number, isOfZombie: false) }
        }
        let job = self.jobs[index]
        self.history.note("provider", "cancel job \(number): \(job.isOver ? "it is over" : "soon")")
        return Reply(answer: job.isOver ? .gone : self.progress(job), after: soon)
    }

    private func isAway(_ request: String) -> Reply<Answer> {
        self.history.note("provider", "\(request): \(self.name) is down")
        return Reply(answer: .unavailable, after: self.chance.milliseconds(1, 20))
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
