/// Makes a run that fails smaller: fewer sagas, replicas, blows and troubles, as long as what is wrong is of the same kind.
///
/// Whatever is taken out changes all that comes after it, so this searches by trying: halves first, then ever smaller parts.
struct Shrinking {
    private let database: Database
    private let end: ContinuousClock.Instant
    private let kinds: Set<String>
    private(set) var smallest: Run
    /// Tried so far.
    private(set) var runs = 0
    /// A run leaves tasks that never end, and are never freed.
    private static let mostRuns = 300

    init(_ failed: Run, _ database: Database, limit: Duration) {
        self.database = database
        self.end = .now + limit
        self.smallest = failed
        self.kinds = Set(failed.wrong.map(Self.kind))
    }

    /// What is wrong, whichever saga it is about, and whatever the number.
    private static func kind(_ wrong: String) -> String {
        wrong.split(separator: " ").map { word in
            let isName = word.first == "S" && word.dropFirst().first.map { "0"..."9" ~= $0 } == true
            return isName || word.contains { "0"..."9" ~= $0 } ? "#" : String(word)
        }.joined(separator: " ")
    }

    private var isOver: Bool { self.runs >= Self.mostRuns || ContinuousClock.now >= self.end }

    /// - Returns: the smallest run found that still fails.
    mutating func shrink() -> Run {
        var before = -1
        while !self.isOver, before != self.size {
            before = self.size
            let named = self.smallest.namedClients
            self.attempt { $0.askings.removeAll { !named.contains($0.client) } }
            self.reduce(\.askings.count, atLeast: 1) { $0.askings.removeSubrange($1) }
            self.reduce(\.blows.count) { $0.blows.removeSubrange($1) }
            for trouble in Plan.Trouble.allCases where self.smallest.plan.rates[trouble] != nil {
                self.attempt { $0.rates[trouble] = nil }
            }
            while self.smallest.plan.replicas > 1 {
                let last = self.smallest.plan.replicas
                // Somebody has to call each site.
                let traits = self.smallest.plan.traits
                if Set(traits.served.prefix(last - 1).joined()) != Set(traits.sites) { break }
                let isSmaller = self.attempt {
                    $0.replicas -= 1
                    $0.blows.removeAll { $0.blow.replica == last }
                }
                if !isSmaller { break }
            }
            self.spare()
        }
        return self.smallest
    }

    private var size: Int {
        let plan = self.smallest.plan
        return plan.askings.count + plan.blows.count + plan.rates.count + plan.replicas + self.smallest.struck.count
    }

    /// Leaves out single troubles. Their names come anew with each run that is smaller.
    private mutating func spare() {
        var length = max(1, self.smallest.struck.count / 2)
        while !self.isOver {
            var start = 0
            while start < self.smallest.struck.count, !self.isOver {
                let names = self.smallest.struck[start..<min(start + length, self.smallest.struck.count)]
                if !self.attempt({ $0.spared.formUnion(names) }) { start += length }
            }
            if length == 1 { return }
            length = max(1, length / 2)
        }
    }

    /// Takes parts out of a list of the plan's, of half its length, then of a quarter, and so on.
    private mutating func reduce(
        _ count: KeyPath<Plan, Int>, atLeast least: Int = 0, _ remove: (inout Plan, Range<Int>) -> Void
    ) {
        var length = max(1, self.smallest.plan[keyPath: count] / 2)
        while !self.isOver {
            var start = 0
            while start < self.smallest.plan[keyPath: count], !self.isOver {
                let all = self.smallest.plan[keyPath: count]
                let range = start..<min(start + length, all)
                if all - range.count < least || !self.attempt({ remove(&$0, range) }) { start += length }
            }
            if length == 1 { return }
            length = max(1, length / 2)
        }
    }

    /// - Returns: whether the run still fails with this change to its plan.
    @discardableResult
    private mutating func attempt(_ change: (inout Plan) -> Void) -> Bool {
        guard !self.isOver else { return false }
        var plan = self.smallest.plan
        change(&plan)
        self.runs += 1
        let run = Run.run(plan, database: self.database, prints: false)
        guard run.wrong.contains(where: { self.kinds.contains(Self.kind($0)) }) else { return false }
        self.smallest = run
        return true
    }
}
