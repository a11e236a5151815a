import DeviceRPC
import SagaRuntime

/// What holds up a saga that is parked, in quarantine or waits; when it goes on; what is left of it; and which command helps.
/// For people.
struct SagaOutlook {
    let blockedBy: String
    let triedNext: String
    let left: String
    /// Commands to paste, each with what it does.
    let helps: [(command: String, effect: String)]

    /// `nil`: nothing holds it up.
    init?(_ saga: V1.Saga) {
        guard saga.status == .parked || saga.isQuarantined || saga.waitingFor != nil else { return nil }
        self.blockedBy = Self.obstacle(saga)
        self.triedNext = Self.next(saga)
        self.left = Self.left(saga)
        self.helps = saga.nextActions.compactMap { Self.help($0, saga) }
    }

    var text: String {
        var text = DeviceText.fields([
            ("blocked_by", self.blockedBy), ("tried_next", self.triedNext), ("left", self.left),
        ])
        if self.helps.isEmpty { return text }
        text += "helps:\n"
        for help in self.helps {
            text += "  # \(Printable.text(help.effect))\n  \(Printable.text(help.command))\n"
        }
        return text
    }

    private static func obstacle(_ saga: V1.Saga) -> String {
        if saga.isQuarantined {
            return "its rows can't be read, or the database refuses its records: the servers' logs say more"
        }
        if saga.status == .parked {
            let failed = saga.steps.filter { $0.status == .compensationFailed }
            if !failed.isEmpty {
                return failed.map { "\($0.name) could not be undone: \($0.error)" }.joined(separator: "; ")
            }
            guard let failure = saga.failure else { return saga.currentStep }
            return "\(failure.step): \(failure.reason): \(failure.message)"
        }
        guard let wait = saga.waitingFor else { return saga.currentStep }
        let step = saga.steps.first { $0.name == saga.currentStep }
        switch wait.reason {
        case "BACK_OFF": return "\(saga.currentStep): \(step?.error ?? "") (tried again after a pause)"
        case "SETTLE_TIME":
            return "\(saga.doubt?.step ?? saga.currentStep): what a call has done may not be visible yet"
        case "BREAKER_OPEN": return "\(wait.dependency) is down"
        case "NO_PERMIT": return "\(wait.dependency) is busy"
        case "JOB": return "\(saga.currentStep): the other side works on it"
        case "SITE_UNSERVED": return "no live replica serves \(wait.dependency)"
        case "COMMAND": return "it was given a command, and is to be taken up"
        default: return wait.dependency.isEmpty ? wait.reason : "\(wait.reason) of \(wait.dependency)"
        }
    }

    private static func next(_ saga: V1.Saga) -> String {
        if saga.isQuarantined { return "not by itself, but by newer programs" }
        if let until = saga.waitingFor?.until { return DeviceText.time(until) }
        switch saga.waitingFor?.reason {
        case "BREAKER_OPEN":
            return
                "once \(saga.waitingFor?.dependency ?? "it") answers; each replica looks after it twice a minute at least"
        case "SITE_UNSERVED": return "once a replica serves it"
        case "COMMAND": return "within seconds"
        default: return saga.status == .parked ? "not by itself" : ""
        }
    }

    private static func left(_ saga: V1.Saga) -> String {
        let isUndone = saga.steps.contains {
            [.compensating, .compensated, .compensationFailed].contains($0.status)
        }
        if saga.status == .compensating || isUndone {
            let left = saga.steps.reversed().filter { step in
                switch step.status {
                case .succeeded, .compensating, .compensationFailed: true
                // What it has done is not known.
                case .running, .failed: saga.doubt?.step == step.name
                default: false
                }
            }
            return left.isEmpty ? "" : "to undo: " + left.map(\.name).joined(separator: ", ")
        }
        let left = saga.steps.filter { ![.succeeded, .skipped].contains($0.status) }
        return left.isEmpty ? "" : "to do: " + left.map(\.name).joined(separator: ", ")
    }

    private static func help(_ action: String, _ saga: V1.Saga) -> (command: String, effect: String)? {
        let isUndone = saga.steps.contains { $0.status == .compensationFailed }
        switch action {
        case "resume":
            return (
                "devicerpc resume \(saga.sagaID) --reason 'the cause is mended'",
                saga.isQuarantined
                    ? "once its rows or the database are mended: goes on where it stopped"
                    : "tries \(isUndone ? "the undo of " : "")\(saga.currentStep) again"
            )
        case "skip":
            return (
                "devicerpc resume \(saga.sagaID) --skip-step --reason 'done by hand'",
                "once somebody has \(isUndone ? "undone" : "done") \(saga.currentStep) by hand: takes it for that"
            )
        case "compensate":
            return (
                "devicerpc compensate \(saga.sagaID) --reason 'not needed any more'",
                "stops it, and undoes what was done"
            )
        default:
            return nil
        }
    }
}
