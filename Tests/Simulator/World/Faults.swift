/// What goes wrong in a run by chance: how often, as planned, until the storm is over. From then on everything must come right.
///
/// Unchecked: of one thread.
final class Faults: @unchecked Sendable {
    let plan: Plan
    private(set) var isOver = false
    private var chance: Chance
    private var counts: [Plan.Trouble: Int] = [:]
    /// What has happened, by name and number: each of these can be spared in another run.
    private(set) var struck: [String] = []

    init(_ plan: Plan) {
        self.plan = plan
        self.chance = Chance(seed: plan.seed, stream: "fates")
    }

    func end() { self.isOver = true }

    /// Whether this trouble comes now.
    ///
    /// - Parameter share: of its rate.
    func strikes(_ trouble: Plan.Trouble, share: Double = 1, _ chance: inout Chance) -> Bool {
        let rate = self.isOver ? 0 : self.plan.rates[trouble] ?? 0
        guard chance.happens(rate * share) else { return false }
        let count = (self.counts[trouble] ?? 0) + 1
        self.counts[trouble] = count
        let name = "\(trouble) \(count)"
        if self.plan.spared.contains(name) { return false }
        self.struck.append(name)
        return true
    }

    /// On the way to the database or back.
    func delay() -> Duration { self.chance.milliseconds(0.05, 0.8) }

    func requestFate() -> RequestFate {
        var fate = RequestFate(there: self.delay(), back: self.delay())
        if self.strikes(.stalls, &self.chance) {
            let stall = self.chance.milliseconds(100, 4000)
            if self.chance.happens(0.5) { fate.there += stall } else { fate.back += stall }
        }
        if self.strikes(.holds, &self.chance) { fate.hold = self.chance.milliseconds(50, 8000) }
        fate.isLostBefore = self.strikes(.requestLost, &self.chance)
        fate.isLostAfter = !fate.isLostBefore && self.strikes(.answerLost, &self.chance)
        return fate
    }
}
