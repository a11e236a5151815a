extension SimulatedBehaviour {
    enum Option: String, CaseIterable {
        case latency = "latency_ms"
        case boot = "boot_ms"
        case fail = "fail"
        case failTimes = "fail_times"
        case loseReply = "lose_reply"
        case loseTimes = "lose_times"
        case late = "late_ms"
        case lookupLag = "lookup_lag_ms"
        case uniqueKeys = "unique_keys"
        #if FAULT_POINTS
            case crash = "crash"
        #endif
    }

    private static let longestMilliseconds = 3_600_000
    private static let mostTimes = 1_000_000

    /// What is wrong with options: the option's name and what is allowed, never its value.
    struct Problem: Equatable {
        var option: String
        var description: String
    }

    /// This behaviour, with `options` over it; what is wrong goes to `problems` and changes nothing.
    func applying(_ options: [String: String], problems: inout [Problem]) -> SimulatedBehaviour {
        var behaviour = self
        for (name, value) in options.sorted(by: { $0.key < $1.key }) {
            guard let option = Option(rawValue: name) else {
                problems.append(
                    Problem(
                        option: name,
                        description: "unknown; allowed: "
                            + Option.allCases.map(\.rawValue).sorted().joined(separator: ", ")))
                continue
            }
            if let description = behaviour.apply(option, value) {
                problems.append(Problem(option: name, description: description))
            }
        }
        return behaviour
    }

    /// For options that were checked before they were stored: what is wrong with them all the same is left out.
    func applying(_ options: [String: String]) -> SimulatedBehaviour {
        guard !options.isEmpty else { return self }
        var ignored: [Problem] = []
        return self.applying(options, problems: &ignored)
    }

    /// - Returns: what is wrong with the value; `nil` if it was taken.
    private mutating func apply(_ option: Option, _ value: String) -> String? {
        switch option {
        case .latency: return Self.milliseconds(value) { self.latency = $0 }
        case .boot: return Self.milliseconds(value) { self.boot = $0 }
        case .late: return Self.milliseconds(value) { self.late = $0 }
        case .lookupLag: return Self.milliseconds(value) { self.lookupLag = $0 }
        case .failTimes: return Self.times(value) { self.failTimes = $0 }
        case .loseTimes: return Self.times(value) { self.loseTimes = $0 }
        case .uniqueKeys:
            guard value == "true" || value == "false" else { return "must be true or false" }
            self.isUniqueByKey = value == "true"
        case .loseReply:
            guard value != "true" else {
                self.lostReplies = [.create]
                return nil
            }
            var calls: Set<Call> = []
            for part in value.split(separator: ",", omittingEmptySubsequences: false) {
                guard let call = Call(rawValue: String(part)), call != .find else {
                    return "must be true (for create) or some of create, start, stop, destroy, joined by commas"
                }
                calls.insert(call)
            }
            self.lostReplies = calls
        case .fail:
            var failures: [Call: Failure] = [:]
            for part in value.split(separator: ",", omittingEmptySubsequences: false) {
                let pair = part.split(separator: ":", omittingEmptySubsequences: false)
                guard pair.count == 2, let call = Call(rawValue: String(pair[0])),
                    let failure = Failure(rawValue: String(pair[1])), failure != .conflict || call == .create
                else {
                    let calls = Call.allCases.map(\.rawValue).joined(separator: ", ")
                    let classes = Failure.allCases.map(\.rawValue).joined(separator: ", ")
                    return
                        "must be step:class, joined by commas; steps: \(calls); classes: \(classes) (conflict: create only)"
                }
                failures[call] = failure
            }
            self.failures = failures
        #if FAULT_POINTS
            case .crash:
                guard let call = Call(rawValue: value) else {
                    return "must be one of " + Call.allCases.map(\.rawValue).joined(separator: ", ")
                }
                self.crash = call
        #endif
        }
        return nil
    }

    private static func milliseconds(_ value: String, _ take: (Duration) -> Void) -> String? {
        guard let number = Int(value), (0...Self.longestMilliseconds).contains(number) else {
            return "must be a whole number of milliseconds from 0 to \(Self.longestMilliseconds)"
        }
        take(.milliseconds(number))
        return nil
    }

    private static func times(_ value: String, _ take: (Int) -> Void) -> String? {
        guard let number = Int(value), (0...Self.mostTimes).contains(number) else {
            return "must be a whole number from 0 to \(Self.mostTimes)"
        }
        take(number)
        return nil
    }
}
