/// What a new saga is to expect of a dependency's calls.
public struct CallOutlook: Sendable, Equatable {
    /// Until its first call may start.
    public var wait: Duration
    /// What its own calls take then.
    public var calls: Duration
}

/// What is to be done at a gate before a new saga's first call, and how fast it goes. In calls and, where it matters how many are
/// under way at a time, in the seconds that these take.
struct Backlog {
    /// Calls by their step.
    typealias Calls = [String: Int]

    /// Of the sagas that wait and go before new ones: this call, and those that follow it.
    var present: Calls = [:]
    /// Those that follow the calls under way.
    var owed: Calls = [:]
    /// Of the new sagas that wait.
    var admissions: Calls = [:]
    var admissionCount = 0
    /// How many of the new ones go first. (Users take turns.)
    var ahead = 0
    /// The calls of a new saga, in their order.
    var course: [String] = []
    /// Undos that wait: these go before everything where there is a rate.
    var undos = 0
    /// Calls that may be under way at a time, and that are.
    var concurrency = 1
    var underWay = 0
    /// Calls that may start in a second.
    var rate: Double?
    /// Seconds until the next one may, as far as the rate goes.
    var pause = 0.0
    /// How long calls take, by step, in seconds.
    var durations: [String: Double] = [:]

    /// `nil`: nobody knows, since no call has come back yet.
    var wait: Duration? {
        let isFull = self.underWay >= self.concurrency
        guard isFull || self.present.count + self.ahead > 0 || self.pause > 0 else { return .zero }
        let slots = self.rate.map { self.wait(perCall: 1 / $0, from: max(self.pause, 0), undos: self.undos) { _ in 1 } }
        let seconds = self.longest.map { longest in
            let mean = self.mean(longest)
            // Those under way are half over, by and large.
            return self.wait(
                perCall: 1 / Double(self.concurrency), from: isFull ? mean / Double(2 * self.concurrency) : 0
            ) {
                self.durations[$0] ?? longest
            }
        }
        guard slots != nil || seconds != nil else { return nil }
        return .microseconds(Int64(min(max(slots ?? 0, seconds ?? 0), 1e9) * 1e6))
    }

    /// What the calls of a new saga take.
    var calls: Duration {
        let longest = self.longest ?? 0
        return .microseconds(Int64(self.course.reduce(0) { $0 + (self.durations[$1] ?? longest) } * 1e6))
    }

    private var longest: Double? { self.durations.values.max() }

    /// What a call takes on average, by what is to be done.
    private func mean(_ longest: Double) -> Double {
        var (calls, seconds) = (0, 0.0)
        for (step, count) in self.present.merging(self.admissions, uniquingKeysWith: +).merging(
            self.owed, uniquingKeysWith: +)
        {
            calls += count
            seconds += Double(count) * (self.durations[step] ?? longest)
        }
        return calls > 0 ? seconds / Double(calls) : longest
    }

    /// - Parameters:
    ///   - perCall: seconds for each unit of a call's weight.
    ///   - weight: of a call of a step.
    private func wait(
        perCall: Double, from start: Double, undos: Int = 0, _ weight: (String) -> Double
    ) -> Double {
        func sum(_ calls: Calls) -> Double { calls.reduce(0) { $0 + Double($1.value) * weight($1.key) } }
        let present = sum(self.present) + Double(undos)
        guard self.ahead > 0, self.admissionCount > 0 else { return start + present * perCall }
        let new = sum(self.admissions) * Double(self.ahead) / Double(self.admissionCount)
        // Sagas under way will ask for more, and go first; but so will others that are under way when the new one's turn comes.
        let owed = sum(self.owed) - self.owedThen(weight)
        return start + max(present, present + new + owed) * perCall
    }

    /// What is owed once things go at an even pace, and as many sagas begin as end: of each step as many calls are under way as
    /// begin while one takes.
    private func owedThen(_ weight: (String) -> Double) -> Double {
        let now = self.owed.reduce(0) { $0 + Double($1.value) * weight($1.key) }
        guard let longest else { return now }
        let seconds = self.course.map { self.durations[$0] ?? longest }
        let perSaga = max(
            self.rate.map { Double(self.course.count) / $0 } ?? 0, seconds.reduce(0, +) / Double(self.concurrency))
        guard perSaga > 0 else { return 0 }
        var (owed, following) = (0.0, 0.0)
        for (step, taken) in zip(self.course, seconds).reversed() {
            owed += taken / perSaga * following
            following += weight(step)
        }
        return min(owed, now + Double(self.ahead) * following)
    }
}

extension Backlog.Calls {
    mutating func add(_ steps: some Sequence<String>) { for step in steps { self[step, default: 0] += 1 } }

    mutating func subtract(_ steps: some Sequence<String>) {
        for step in steps {
            let rest = (self[step] ?? 0) - 1
            self[step] = rest > 0 ? rest : nil
        }
    }
}
