/// Where a batch stands, for its progress line. Pure: time comes in.
struct BatchTally: Sendable {
    let total: Int
    private(set) var outcomes: [String: BatchOutcome] = [:]
    private(set) var succeeded = 0
    private(set) var failed = 0

    init(total: Int) { self.total = total }

    mutating func add(_ name: String, _ outcome: BatchOutcome) {
        self.outcomes[name] = outcome
        if outcome.isSuccess { self.succeeded += 1 } else { self.failed += 1 }
    }

    var done: Int { self.succeeded + self.failed }

    /// `████░░░░ 40/100  ✓ 38  ✗ 2  12.3/s  5.0 s left`
    func line(elapsed: Duration, style: TextStyle) -> String {
        var line = ProgressBar.render(done: self.done, total: self.total, width: 30) + " \(self.done)/\(self.total)"
        line += "  ✓ \(self.succeeded)"
        if self.failed > 0 { line += "  ✗ \(self.failed)" }
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
        if self.done > 0, seconds > 0 {
            let rate = Double(self.done) / seconds
            line += "  \(Self.oneDigit(rate))/s"
            let left = Double(self.total - self.done) / rate
            if self.done < self.total { line += "  \(ProgressBar.elapsed(.milliseconds(Int64(left * 1000)))) left" }
        }
        return line
    }

    /// `✗ 12 QUOTA_REFUSED`, a line for each reason, the most frequent first.
    func reasons(style: TextStyle) -> String {
        let counts = Dictionary(
            self.outcomes.values.map(\.failure).filter { !$0.isEmpty }.map { ($0, 1) }, uniquingKeysWith: +)
        return counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { "\(style.red("✗")) \($0.value) \(Printable.text($0.key))\n" }.joined()
    }

    /// The worst of all outcomes, for the exit code.
    var status: CommandStatus {
        let outcomes = self.outcomes.values
        if outcomes.contains(where: { $0.status == .parked }) { return .parked }
        if outcomes.contains(where: { $0.status == .compensated }) { return .failed }
        if outcomes.contains(where: { $0.status == .error && $0.code == "UNAVAILABLE" }) { return .unavailable }
        if outcomes.contains(where: { $0.status == .error && $0.code == "DEADLINE_EXCEEDED" }) { return .timedOut }
        if outcomes.contains(where: { $0.status == .error }) { return .refused }
        return .success
    }

    private static func oneDigit(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}
