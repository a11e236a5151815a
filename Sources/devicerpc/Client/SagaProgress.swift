import DeviceRPC
import SagaRuntime

/// What a terminal shows of a saga under way, told from its events alone. Pure: time comes in.
struct SagaProgress {
    private(set) var lastSequence: UInt32 = 0
    private(set) var status: V1.SagaStatus = .running
    private var stepsDone: UInt32 = 0
    private var stepsTotal: UInt32 = 0
    /// What is going on now, e.g. `START_DEVICE (attempt 2)`.
    private var activity = ""
    private var retryAt: Timestamp?
    private var startedAt: Timestamp?
    private var stepStartedAt: [String: Timestamp] = [:]

    init() {}

    /// Takes the next event; an event that was seen before changes nothing.
    ///
    /// - Returns: lines that stay.
    mutating func apply(_ event: V1.SagaEvent, style: TextStyle) -> [String] {
        guard event.sequence > self.lastSequence else { return [] }
        self.lastSequence = event.sequence
        self.status = event.sagaStatus
        self.stepsDone = event.stepsDone
        self.stepsTotal = event.stepsTotal
        self.retryAt = event.retryAt
        if self.startedAt == nil { self.startedAt = event.time }
        let step = Printable.text(event.step)
        let why = Self.why(event)
        switch event.type {
        case .sagaStarted:
            self.activity = ""
            return []
        case .stepStarted, .stepCompensating:
            if self.stepStartedAt[step] == nil || event.type == .stepCompensating {
                self.stepStartedAt[step] = event.time
            }
            let verb = event.type == .stepCompensating ? "undoing " : ""
            self.activity = "\(verb)\(step)\(event.attempt > 1 ? " (attempt \(event.attempt))" : "")"
            return []
        case .stepRetrying:
            self.activity = "\(step) (waiting to try again)"
            return [self.line(style.yellow("↻"), step, "attempt \(event.attempt) failed\(why)")]
        case .stepSucceeded:
            self.activity = ""
            return [self.line(style.green("✓"), step, self.took(step, event))]
        case .stepProgress:
            self.activity = "\(step)\(event.message.isEmpty ? "" : ": \(Printable.text(event.message))")"
            return []
        case .commandReceived:
            return [style.yellow("  " + Printable.text("\(event.reason.lowercased()) \(event.message)"))]
        case .stepSkipped:
            return [self.line(style.dim("–"), step, "skipped\(why)")]
        case .stepFailed:
            return [self.line(style.red("✗"), step, "failed\(why)")]
        case .sagaCompensating:
            self.activity = "undoing"
            return [style.yellow("  undoing what was done\(why)")]
        case .stepCompensated:
            self.activity = "undoing"
            return [self.line(style.yellow("↶"), step, "undone \(self.took(step, event))")]
        case .stepCompensationFailed:
            return [self.line(style.red("✗"), step, "could not be undone\(why)")]
        case .sagaCompleted: return [style.green("completed") + self.total(event)]
        case .sagaCompensated: return [style.red("failed, and undone") + self.total(event) + why]
        case .sagaParked: return [style.red("parked: an operator is needed") + self.total(event) + why]
        case .sagaResumed: return [style.dim("  taken up again by an operator\(why)")]
        case .stepProgress:
            self.activity = "\(step): \(event.message)"
            return []
        case .commandReceived: return [style.dim("  command received\(why)")]
        case .sagaAdopted: return [style.dim("  taken over by another replica")]
        default: return [style.dim("  \(event.type)")]
        }
    }

    /// The line that is drawn again and again: a bar, the count and what goes on.
    func liveLine(now: Timestamp) -> String {
        var line = ProgressBar.render(done: Int(self.stepsDone), total: Int(self.stepsTotal), width: 20)
        line += " \(self.stepsDone)/\(self.stepsTotal)"
        if let startedAt = self.startedAt { line += "  \(ProgressBar.elapsed(max(.zero, now - startedAt)))" }
        if !self.activity.isEmpty { line += "  \(self.activity)" }
        if let retryAt = self.retryAt, now < retryAt { line += ", in \(ProgressBar.elapsed(retryAt - now))" }
        return line
    }

    /// Whether the last event ended the saga or parked it.
    var isOver: Bool { [.completed, .compensated, .parked].contains(self.status) }

    private func line(_ mark: String, _ step: String, _ rest: String) -> String {
        "  \(mark) \(step.padded(to: 24)) \(rest)"
    }

    private func took(_ step: String, _ event: V1.SagaEvent) -> String {
        guard let start = self.stepStartedAt[step], let end = event.time else { return "" }
        return ProgressBar.elapsed(max(.zero, end - start))
    }

    private func total(_ event: V1.SagaEvent) -> String {
        guard let start = self.startedAt, let end = event.time else { return "" }
        return " after \(ProgressBar.elapsed(max(.zero, end - start)))"
    }

    private static func why(_ event: V1.SagaEvent) -> String {
        let parts = [event.reason, event.message].filter { !$0.isEmpty }
        return parts.isEmpty ? "" : ": " + Printable.text(parts.joined(separator: ": "))
    }
}

extension V1.SagaEvent {
    /// One line for a pipe: `2026-01-31T12:00:00.123Z 7 STEP_RETRYING START_DEVICE attempt=2 done=4/5 reason=… message=…`.
    var plainLine: String {
        var parts = [
            self.time.map { WallClock.render($0.microseconds) } ?? "-", "\(self.sequence)", self.type.shortName,
        ]
        if !self.step.isEmpty { parts.append(self.step) }
        if self.attempt > 0 { parts.append("attempt=\(self.attempt)") }
        parts.append("status=\(self.sagaStatus.shortName)")
        parts.append("done=\(self.stepsDone)/\(self.stepsTotal)")
        if !self.reason.isEmpty { parts.append("reason=\(self.reason)") }
        if let retryAt = self.retryAt { parts.append("retry_at=\(WallClock.render(retryAt.microseconds))") }
        if !self.message.isEmpty { parts.append("message=\(JSONText.quoted(self.message))") }
        return Printable.text(parts.joined(separator: " "))
    }
}
