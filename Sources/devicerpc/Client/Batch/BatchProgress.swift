import DeviceRPC

/// What is shown of a batch that is watched, told from its sagas alone. Pure: time comes in.
struct BatchProgress {
    private struct Member {
        var status: V1.SagaStatus
        var deviceID: String
        var requestID: String
        var reason: String
        var message: String
    }

    private var members: [String: Member] = [:]
    private var counts: [V1.SagaStatus: Int] = [:]
    private var reasons: [String: Int] = [:]

    /// A saga as it is, when the stream takes it up.
    ///
    /// - Returns: a line, if it is over or parked, and was not when it was last heard of.
    mutating func apply(_ saga: V1.Saga, style: TextStyle) -> [String] {
        let member = Member(
            status: saga.status, deviceID: saga.deviceID, requestID: saga.requestID, reason: saga.failure?.reason ?? "",
            message: saga.failure?.message ?? "")
        return self.update(saga.sagaID, member, style)
    }

    /// The same for an event.
    mutating func apply(_ event: V1.SagaEvent, style: TextStyle) -> [String] {
        guard var member = self.members[event.sagaID] else { return [] }
        member.status = event.sagaStatus
        switch event.type {
        case .stepFailed, .sagaCompensating, .stepCompensationFailed, .sagaParked:
            if !event.reason.isEmpty { (member.reason, member.message) = (event.reason, event.message) }
        case .sagaResumed where event.sagaStatus == .running: (member.reason, member.message) = ("", "")
        default: break
        }
        return self.update(event.sagaID, member, style)
    }

    private mutating func update(_ id: String, _ member: Member, _ style: TextStyle) -> [String] {
        let before = self.members.updateValue(member, forKey: id)?.status
        if before == member.status { return [] }
        if let before { self.counts[before, default: 0] -= 1 }
        self.counts[member.status, default: 0] += 1
        guard Self.resting.contains(member.status) else { return [] }
        let names = "\(member.requestID.isEmpty ? id : member.requestID)  saga_id=\(id) device_id=\(member.deviceID)"
        if member.status == .completed { return ["\(style.green("COMPLETED"))    \(Printable.text(names))"] }
        self.reasons[member.reason, default: 0] += 1
        let why = member.reason.isEmpty ? "" : "  \(member.reason): \(member.message)"
        let word = member.status.shortName.padded(to: 12)
        return ["\(style.red(word)) \(Printable.text(names + why))"]
    }

    private static let resting: Set<V1.SagaStatus> = [.completed, .compensated, .parked]

    /// Whether nothing moves any more.
    var isOver: Bool { !self.members.isEmpty && self.done == self.members.count }

    private var done: Int { Self.resting.map { self.counts[$0] ?? 0 }.reduce(0, +) }

    /// `████░░░░ 40/100  38 completed, 60 running, 2 compensated  5.0 s`
    func line(elapsed: Duration) -> String {
        let counts = self.counts.filter { $0.value > 0 }.sorted { $0.key.rawValue < $1.key.rawValue }
            .map { "\($0.value) \($0.key.shortName.lowercased())" }
        return ProgressBar.render(done: self.done, total: self.members.count, width: 30)
            + " \(self.done)/\(self.members.count)  \(counts.joined(separator: ", "))  \(ProgressBar.elapsed(elapsed))"
    }

    /// The failed ones by reason, the most frequent first.
    func summary(style: TextStyle) -> [String] {
        self.reasons.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { "\(style.red("✗")) \($0.value) \(Printable.text($0.key.isEmpty ? "of unknown reason" : $0.key))" }
    }

    /// The gravest end, for the exit code.
    var status: CommandStatus {
        if self.counts[.parked, default: 0] > 0 { return .parked }
        return self.counts[.compensated, default: 0] > 0 ? .failed : .success
    }
}
