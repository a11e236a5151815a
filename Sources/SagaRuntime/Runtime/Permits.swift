import Synchronization

/// Which permit a call needs: that of whom it calls, where somebody limits that, else that of its step; and the direction.
/// Undo has permits of its own, so that forward work never starves it.
struct PermitKind: Hashable, Sendable {
    /// Whom the call is for, by the name that breakers have for it; or the step.
    var gate: String
    var isUndo: Bool
}

/// What one process may do at a dependency: its share of what the dependency can take.
public struct CallLimits: Sendable, Equatable {
    /// Calls under way at a time, in each direction; `nil`: as many as at any other.
    public var concurrency: Int?
    /// Calls that start in a second, in both directions together; `nil`: any number.
    public var callsPerSecond: Double?

    public init(concurrency: Int? = nil, callsPerSecond: Double? = nil) {
        self.concurrency = concurrency
        self.callsPerSecond = callsPerSecond
    }
}

/// How many calls may be under way, and how fast they may follow each other. Within a direction users take turns; sagas that are
/// there already go before new ones.
final class Permits: Sendable {
    private typealias Waiter = CheckedContinuation<Bool, Never>

    /// Those who wait, by users in turns.
    private struct Line {
        private var waiting: [String: [Waiter]] = [:]
        private var turns: [String] = []
        private(set) var count = 0

        mutating func append(_ waiter: Waiter, of user: String) {
            if self.waiting[user] == nil { self.turns.append(user) }
            self.waiting[user, default: []].append(waiter)
            self.count += 1
        }

        mutating func popFirst() -> Waiter? {
            guard let user = self.turns.first, let waiter = self.waiting[user]?.removeFirst() else { return nil }
            self.turns.removeFirst()
            self.count -= 1
            if self.waiting[user]?.isEmpty == true { self.waiting[user] = nil } else { self.turns.append(user) }
            return waiter
        }
    }

    private struct Direction {
        var taken = 0
        /// Sagas that are there already.
        var present = Line()
        /// New ones; they give way.
        var admissions = Line()

        var waiting: Int { self.present.count + self.admissions.count }
    }

    private struct Gate {
        var undo = Direction()
        var forward = Direction()
        /// When the next call may start, as far as the rate goes.
        var nextStart: BootTime?
        /// Somebody sleeps until then.
        var isTimed = false
        /// When the newest new sagas were let in, while others waited.
        var admitted: [BootTime] = []

        subscript(isUndo: Bool) -> Direction {
            get { isUndo ? self.undo : self.forward }
            _modify { if isUndo { yield &self.undo } else { yield &self.forward } }
        }
    }

    private struct State {
        var gates: [String: Gate] = [:]
        /// Nobody waits any more.
        var isOpen = false
    }

    /// How much of a second's calls may come at once.
    private static let burst = 0.1
    private static let samples = 32

    private let limit: Int
    private let limits: @Sendable (String) -> CallLimits?
    private let surroundings: Surroundings
    private let state = Mutex(State())

    /// - Parameters:
    ///   - limit: calls under way at a time where nobody says otherwise.
    ///   - limits: what this process may do at a gate, now; `nil`: nobody limits it.
    init(
        limit: Int, surroundings: Surroundings = .real,
        limits: @escaping @Sendable (String) -> CallLimits? = { _ in nil }
    ) {
        self.limit = limit
        self.limits = limits
        self.surroundings = surroundings
    }

    /// Whether calls of a dependency need its own permit, and not their step's.
    func isLimited(_ gate: String) -> Bool { self.limits(gate) != nil }

    /// True if it had to wait.
    private func take(_ kind: PermitKind, user: String, isAdmission: Bool) async -> Bool {
        let limits = self.limits(kind.gate)
        return await withCheckedContinuation { (continuation: Waiter) in
            let (isFree, ready) = self.state.withLock { state -> (Bool, [Waiter]) in
                if state.isOpen {
                    state.gates[kind.gate, default: Gate()][kind.isUndo].taken += 1
                    return (true, [])
                }
                // In place: a copy of a gate would be one of all who wait at it.
                return self.queue(
                    continuation, kind, user: user, isAdmission: isAdmission, limits,
                    &state.gates[kind.gate, default: Gate()])
            }
            if isFree { continuation.resume(returning: false) }
            for waiter in ready { waiter.resume(returning: true) }
        }
    }

    /// - Returns: whether it is free at once, else whose turn has come.
    private func queue(
        _ waiter: Waiter, _ kind: PermitKind, user: String, isAdmission: Bool, _ limits: CallLimits?,
        _ gate: inout Gate
    ) -> (isFree: Bool, ready: [Waiter]) {
        if gate[kind.isUndo].waiting == 0, self.mayStart(kind.isUndo, limits, &gate) {
            gate[kind.isUndo].taken += 1
            return (true, [])
        }
        if isAdmission {
            gate[kind.isUndo].admissions.append(waiter, of: user)
        } else {
            gate[kind.isUndo].present.append(waiter, of: user)
        }
        return (false, self.next(kind.gate, limits, &gate))
    }

    /// Whether a call of this direction may start now; if so it is counted by the rate.
    private func mayStart(_ isUndo: Bool, _ limits: CallLimits?, _ gate: inout Gate) -> Bool {
        // A share of none (more replicas than permits) ends what is held already, one by one.
        let concurrency = limits?.concurrency.map { max($0, 1) } ?? self.limit
        guard gate[isUndo].taken < concurrency else { return false }
        guard let rate = limits?.callsPerSecond else { return true }
        let now = self.surroundings.now
        let interval = Duration.microseconds(Int64(1e6 / max(rate, 0.001)))
        let start = max(gate.nextStart ?? now, now + .microseconds(-Int64(1e6 * Self.burst)))
        guard start <= now else { return false }
        gate.nextStart = start + interval
        return true
    }

    /// Those whose turn has come: undo first. If only the rate holds others back, somebody comes back in time.
    private func next(_ name: String, _ limits: CallLimits?, _ gate: inout Gate) -> [Waiter] {
        var ready: [Waiter] = []
        for isUndo in [true, false] {
            while gate[isUndo].waiting > 0, self.mayStart(isUndo, limits, &gate) {
                if let waiter = gate[isUndo].present.popFirst() {
                    ready.append(waiter)
                } else if let waiter = gate[isUndo].admissions.popFirst() {
                    ready.append(waiter)
                    gate.admitted.append(self.surroundings.now)
                    if gate.admitted.count > Self.samples { gate.admitted.removeFirst() }
                }
                gate[isUndo].taken += 1
            }
        }
        if gate.forward.admissions.count == 0 { gate.admitted = [] }
        let isHeldBack = gate.undo.waiting + gate.forward.waiting > 0
        if isHeldBack, !gate.isTimed, limits?.callsPerSecond != nil, let start = gate.nextStart {
            gate.isTimed = true
            let pause = max(start - self.surroundings.now, .milliseconds(1))
            Task {
                try? await self.surroundings.sleep(for: pause)
                self.come(to: name)
            }
        }
        return ready
    }

    private func come(to name: String) {
        self.lookAgain(name) { $0.isTimed = false }
    }

    private func lookAgain(_ name: String, _ change: (inout Gate) -> Void = { _ in }) {
        let limits = self.limits(name)
        let ready = self.state.withLock { state -> [Waiter] in
            guard !state.isOpen, state.gates[name] != nil else { return [] }
            return self.lookAgain(name, limits, &state.gates[name, default: Gate()], change)
        }
        for waiter in ready { waiter.resume(returning: true) }
    }

    private func lookAgain(
        _ name: String, _ limits: CallLimits?, _ gate: inout Gate, _ change: (inout Gate) -> Void
    ) -> [Waiter] {
        change(&gate)
        return self.next(name, limits, &gate)
    }

    /// The shares may have changed.
    func refresh() {
        for name in self.state.withLock({ Array($0.gates.keys) }) { self.lookAgain(name) }
    }

    private func giveBack(_ kind: PermitKind) {
        self.lookAgain(kind.gate) { $0[kind.isUndo].taken -= 1 }
    }

    /// A draining server starts no more calls: those who wait are told so by whoever they ask next, not by a permit.
    func endWaits() {
        let waiting = self.state.withLock { state in
            state.isOpen = true
            var waiting: [Waiter] = []
            for name in Array(state.gates.keys) {
                for isUndo in [true, false] {
                    while let next = state.gates[name]?[isUndo].present.popFirst()
                        ?? state.gates[name]?[isUndo].admissions.popFirst()
                    {
                        state.gates[name]?[isUndo].taken += 1
                        waiting.append(next)
                    }
                }
            }
            return waiting
        }
        for continuation in waiting { continuation.resume(returning: true) }
    }

    /// How many wait for one of these.
    func waiting(_ kind: PermitKind) -> Int { self.state.withLock { $0.gates[kind.gate]?[kind.isUndo].waiting ?? 0 } }

    /// How long a new saga would wait for its first call at a dependency, at its present speed; `nil`: nobody knows.
    ///
    /// - Parameter callsOfSaga: that a saga makes there, until it has no more to wait for. They go before new ones.
    func outlook(_ gate: String, callsOfSaga: Double) -> Duration? {
        let limits = self.limits(gate)
        return self.state.withLock { state in
            guard let limits, let gate = state.gates[gate], gate.forward.waiting > 0 else { return .zero }
            let waiting = Double(gate.forward.admissions.count)
            if gate.admitted.count >= 8, let first = gate.admitted.first {
                let span = (self.surroundings.now - first).inSeconds
                if span > 0.5 { return .microseconds(Int64(waiting * span / Double(gate.admitted.count) * 1e6)) }
            }
            guard let rate = limits.callsPerSecond else { return nil }
            // Of those that are there, some wait for their first call, and some for their last.
            let calls = (waiting + 0.75 * Double(gate.forward.present.count)) * callsOfSaga
            return .microseconds(Int64(calls / rate * 1e6))
        }
    }

    /// The one permit that a saga holds at a time.
    struct Holding {
        private let permits: Permits
        private let user: String
        private var kind: PermitKind?

        init(_ permits: Permits, user: String = "") {
            self.permits = permits
            self.user = user
        }

        /// Gives the permit in hand back and takes one of `kind`; none for `nil`.
        /// - Returns: whether it had to wait: then the machine is to be asked again, by the time that it is now.
        mutating func hold(_ kind: PermitKind?, isAdmission: Bool = false) async -> Bool {
            guard kind != self.kind else { return false }
            self.release()
            guard let kind else { return false }
            let hasWaited = await self.permits.take(kind, user: self.user, isAdmission: isAdmission)
            self.kind = kind
            return hasWaited
        }

        mutating func release() {
            if let kind = self.kind { self.permits.giveBack(kind) }
            self.kind = nil
        }
    }
}

extension SagaDefinition {
    /// What a call needs a permit for.
    ///
    /// - Parameter dependency: whom it calls, if calls to them are limited.
    func permit(for call: SagaMachine.StepCall, limitedAt dependency: String?) -> PermitKind {
        PermitKind(gate: dependency ?? self.steps[call.step].name, isUndo: call.kind == .compensate)
    }

    /// What the saga calls once `record` is committed; `nil` if nothing.
    func permit(after record: SagaRecord, isLimited: (String) -> Bool) -> PermitKind? {
        let snapshot = record.granted.snapshot
        // What turns a saga back, or records a failed attempt, is never kept waiting, nor a result by a step whose doubt costs
        // nothing: their permits are taken at the call.
        guard snapshot.status == .running, record.kind != .retry, record.kind != .adopt, record.kind != .sleep,
            self.steps.indices.contains(snapshot.stepIndex)
        else { return nil }
        let step = self.steps[snapshot.stepIndex]
        guard case .remote(let remote) = step.action, !remote.isRepeatable else { return nil }
        let dependency =
            record.birth?.firstDependency ?? remote.dependency(request: snapshot.request, outputs: snapshot.outputs)
        if let dependency, isLimited(dependency) { return PermitKind(gate: dependency, isUndo: false) }
        return PermitKind(gate: step.name, isUndo: false)
    }
}
