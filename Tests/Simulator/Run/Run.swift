/// One seed, from its beginning to its judgement.
struct Run {
    var plan: Plan
    var wrong: [String]
    var history: [String]
    var digest: String
    var sagas: Int
    var statements: Int
    var jobs: Int
    var seconds: Double
    var statuses: [String: Int]
    /// The troubles that came.
    var struck: [String]

    /// After the storm everything must be over within this: leases, back-offs and settle times are all shorter.
    private static let patience = Duration.seconds(150)
    /// So long after the last saga ended nothing may appear any more.
    private static let aftermath = Duration.seconds(12)

    static func run(_ plan: Plan, database: Database, prints: Bool) -> Run {
        let world = World(plan, database: database, prints: prints)
        world.begin()
        let scheduler = Scheduler.shared
        let limit = (plan.storm + Self.patience).nanoseconds
        var quietSince: Int64?
        let end = scheduler.run(until: limit) {
            guard world.isAtRest else { return false }
            let since = quietSince ?? scheduler.now
            quietSince = since
            return scheduler.now - since > Self.aftermath.nanoseconds
        }
        world.history.note("seed", "the run ends: \(end)")
        let wrong = Oracle(world: world).judge(end)
        var statuses: [String: Int] = [:]
        for row in database.rows("SELECT status::text, count(*)::text FROM saga_state GROUP BY 1 ORDER BY 1") {
            statuses[row[0]] = Int(row[1])
        }
        for line in wrong { world.history.note("oracle", line) }
        return Run(
            plan: plan, wrong: wrong.map { world.history.readable($0) }, history: world.history.lines,
            digest: world.history.digestText,
            sagas: plan.askings.count, statements: database.statements, jobs: scheduler.jobsRun,
            seconds: Double(scheduler.now) / 1e9, statuses: statuses,
            struck: world.faults.struck)
    }
}
