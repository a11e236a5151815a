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

/// What a saga that asks for a permit is about to do.
struct PermitErrand: Sendable {
    /// It is new, and gives way to those that are there already.
    var isAdmission = false
    /// The steps whose calls it still has at this gate, in their order, that of this call first; empty where nobody limits the gate.
    var steps: [String] = []
    /// A new saga, by which it can be withdrawn.
    var id: SagaID?
}

/// How many calls may be under way, and how fast they may follow each other. Within a direction users take turns; sagas that are
/// there already go before new ones.
final class Permits: Sendable {
    private enum Turn {
        case free
        case come
        /// It was wanted no more.
        case gone
    }

    private struct Waiter {
        var errand: PermitErrand
        var continuation: CheckedContinuation<Turn, Never>
    }

    /// Those who wait, by users in turns.
    private struct Line {
        private var waiting: [String: [Waiter]] = [:]
        private var turns: [String] = []
        /// How many users have at least one waiting, at least two, …
        private var depths: [Int] = []
        private(set) var count = 0
        /// What they are going to do, by step.
        private(set) var calls: Backlog.Calls = [:]

        mutating func append(_ waiter: Waiter, of user: String) {
            if self.waiting[user] == nil { self.turns.append(user) }
            self.waiting[user, default: []].append(waiter)
            let depth = self.waiting[user]?.count ?? 1
            if self.depths.count < depth { self.depths.append(0) }
            self.depths[depth - 1] += 1
            self.count += 1
            self.calls.add(waiter.errand.steps)
        }

        mutating func popFirst() -> Waiter? {
            guard let user = self.turns.first, let waiter = self.remove(at: 0, of: user) else { return nil }
            self.turns.removeFirst()
            if self.waiting[user] != nil { self.turns.append(user) }
            return waiter
        }

        mutating func remove(_ id: SagaID, of user: String) -> Waiter? {
            guard let index = self.waiting[user]?.firstIndex(where: { $0.errand.id == id }) else { return nil }
            let waiter = self.remove(at: index, of: user)
            if self.waiting[user] == nil { self.turns.removeAll { $0 == user } }
            return waiter
        }

        private mutating func remove(at index: Int, of user: String) -> Waiter? {
            guard let depth = self.waiting[user]?.count, let waiter = self.waiting[user]?.remove(at: index) else {
                return nil
            }
            if depth == 1 { self.waiting[user] = nil }
            self.depths[depth - 1] -= 1
            if self.depths.last == 0 { self.depths.removeLast() }
            self.count -= 1
            self.calls.subtract(waiter.errand.steps)
            return waiter
        }

        /// How many would go before one more of a user's.
        func ahead(of user: String) -> Int { self.depths.prefix((self.waiting[user]?.count ?? 0) + 1).reduce(0, +) }
    }

    private struct Direction {
        var taken = 0
        /// Sagas that are there already.
        var present = Line()
        /// New ones; they give way.
        var admissions = Line()

        var waiting: Int { self.present.count + self.admissions.count }

        mutating func popFirst() -> Waiter? { self.present.popFirst() ?? self.admissions.popFirst() }
    }

    private struct Gate {
        var undo = Direction()
        var forward = Direction()
        /// When the next call may start, as far as the rate goes.
        var nextStart: BootTime?
        /// Somebody sleeps until then.
        var isTimed = false
        /// What sagas whose call is under way are going to do after it.
        var owed: Backlog.Calls = [:]
        /// What the newest new saga was going to do.
        var course: [String] = []
        /// How long a permit of each step is held lately, in seconds.
        var durations: [String: Double] = [:]
        /// Of how many calls that is known, up to `samples`.
        var known: [String: Int] = [:]

        subscript(isUndo: Bool) -> Direction {
            get { isUndo ? self.undo : self.forward }
            _modify { if isUndo { yield &self.undo } else { yield &self.forward } }
        }

        /// A permit is given to one who doesn't wait any more.
        mutating func give(_ isUndo: Bool, _ errand: PermitErrand) {
            self[isUndo].taken += 1
            if !isUndo { self.owed.add(errand.steps.dropFirst()) }
        }
    }

    private struct State {
        var gates: [String: Gate] = [:]
        /// Where new sagas wait.
        var admissions: [SagaID: (kind: PermitKind, user: String)] = [:]
        /// Nobody waits any more.
        var isOpen = false
    }

    /// How much of a second's calls may come at once.
    private static let burst = 0.1
    /// How many calls count in what is known of how long they take; older ones count less and less.
    private static let samples = 5

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

    /// Whether this process has no share of a dependency's calls: more processes than it takes calls serve it.
    func hasNoShare(of gate: String) -> Bool { self.limits(gate)?.concurrency == 0 }

    private func take(_ kind: PermitKind, user: String, _ errand: PermitErrand) async -> Turn {
        let limits = self.limits(kind.gate)
        return await withCheckedContinuation { continuation in
            let (isFree, ready) = self.state.withLock { state -> (Bool, [Waiter]) in
                if state.isOpen {
                    state.gates[kind.gate, default: Gate()].give(kind.isUndo, errand)
                    return (true, [])
                }
                let waiter = Waiter(errand: errand, continuation: continuation)
                // In place: a copy of a gate would be one of all who wait at it.
                let (isFree, ready) = self.queue(
                    waiter, kind, user: user, limits, &state.gates[kind.gate, default: Gate()])
                if !isFree, let id = errand.id { state.admissions[id] = (kind, user) }
                for waiter in ready { if let id = waiter.errand.id { state.admissions[id] = nil } }
                return (isFree, ready)
            }
            if isFree { continuation.resume(returning: .free) }
            Self.resume(ready)
        }
    }

    private static func resume(_ ready: [Waiter]) {
        for waiter in ready { waiter.continuation.resume(returning: .come) }
    }

    /// - Returns: whether it is free at once, else whose turn has come.
    private func queue(
        _ waiter: Waiter, _ kind: PermitKind, user: String, _ limits: CallLimits?, _ gate: inout Gate
    ) -> (isFree: Bool, ready: [Waiter]) {
        if waiter.errand.isAdmission { gate.course = waiter.errand.steps }
        if gate[kind.isUndo].waiting == 0, self.mayStart(kind.isUndo, limits, &gate) {
            gate.give(kind.isUndo, waiter.errand)
            return (true, [])
        }
        if waiter.errand.isAdmission {
            gate[kind.isUndo].admissions.append(waiter, of: user)
        } else {
            gate[kind.isUndo].present.append(waiter, of: user)
        }
        return (false, self.next(kind.gate, limits, &gate))
    }

    /// How many calls may be under way in a direction. With a share of none, those that wait already have their turn, one by one, and
    /// so have sagas that can't be left to others.
    private func concurrency(_ limits: CallLimits?) -> Int { limits?.concurrency.map { max($0, 1) } ?? self.limit }

    /// Whether a call of this direction may start now; if so it is counted by the rate.
    private func mayStart(_ isUndo: Bool, _ limits: CallLimits?, _ gate: inout Gate) -> Bool {
        guard gate[isUndo].taken < self.concurrency(limits) else { return false }
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
            while gate[isUndo].waiting > 0, self.mayStart(isUndo, limits, &gate), let waiter = gate[isUndo].popFirst() {
                gate.give(isUndo, waiter.errand)
                ready.append(waiter)
            }
        }
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
            guard state.gates[name] != nil else { return [] }
            return self.lookAgain(name, limits, &state, change)
        }
        Self.resume(ready)
    }

    private func lookAgain(
        _ name: String, _ limits: CallLimits?, _ state: inout State, _ change: (inout Gate) -> Void
    ) -> [Waiter] {
        let ready = self.next(name, limits, &state.gates[name, default: Gate()], after: change)
        for waiter in ready { if let id = waiter.errand.id { state.admissions[id] = nil } }
        return ready
    }

    private func next(
        _ name: String, _ limits: CallLimits?, _ gate: inout Gate, after change: (inout Gate) -> Void
    ) -> [Waiter] {
        change(&gate)
        return self.next(name, limits, &gate)
    }

    /// The shares may have changed.
    func refresh() {
        for name in self.state.withLock({ Array($0.gates.keys) }) { self.lookAgain(name) }
    }

    /// - Parameter call: of which step it was for, and since when; `nil`: none was made.
    private func giveBack(_ kind: PermitKind, after call: (step: String, since: BootTime)?) {
        let seconds = call.map { (self.surroundings.now - $0.since).inSeconds }
        self.lookAgain(kind.gate) { gate in
            gate[kind.isUndo].taken -= 1
            guard !kind.isUndo, let step = call?.step, let seconds else { return }
            let count = min((gate.known[step] ?? 0) + 1, Self.samples)
            let mean = gate.durations[step] ?? seconds
            gate.known[step] = count
            gate.durations[step] = mean + (seconds - mean) / Double(count)
        }
    }

    /// What was owed at a gate comes now, or never.
    private func settle(_ steps: ArraySlice<String>, at gate: String) {
        self.state.withLock { $0.gates[gate]?.owed.subtract(steps) }
    }

    /// A new saga's caller has left, or its time is up: it waits no more, and uses up no call of those who do.
    func withdraw(_ id: SagaID) {
        let waiter = self.state.withLock { state -> Waiter? in
            guard let (kind, user) = state.admissions.removeValue(forKey: id) else { return nil }
            return state.gates[kind.gate]?[kind.isUndo].admissions.remove(id, of: user)
        }
        waiter?.continuation.resume(returning: .gone)
    }

    /// A draining server starts no more calls: those who wait are told so by whoever they ask next, not by a permit.
    func endWaits() {
        let waiting = self.state.withLock { state in
            state.isOpen = true
            state.admissions = [:]
            var waiting: [Waiter] = []
            for name in Array(state.gates.keys) {
                for isUndo in [true, false] {
                    while let next = state.gates[name]?[isUndo].popFirst() {
                        state.gates[name]?.give(isUndo, next.errand)
                        waiting.append(next)
                    }
                }
            }
            return waiting
        }
        Self.resume(waiting)
    }

    /// Whether somebody holds a permit of a gate.
    func isTaken(_ gate: String) -> Bool {
        self.state.withLock { ($0.gates[gate]?.undo.taken ?? 0) + ($0.gates[gate]?.forward.taken ?? 0) > 0 }
    }

    /// How many wait for one of these.
    func waiting(_ kind: PermitKind) -> Int { self.state.withLock { $0.gates[kind.gate]?[kind.isUndo].waiting ?? 0 } }

    /// What a new saga of a user is to expect at a gate, at its present speed; `nil`: nobody knows.
    func outlook(_ name: String, user: String) -> CallOutlook? {
        let nothing = CallOutlook(wait: .zero, calls: .zero)
        guard let limits = self.limits(name) else { return nothing }
        let now = self.surroundings.now
        let backlog = self.state.withLock { state -> Backlog? in
            guard let gate = state.gates[name] else { return nil }
            return Backlog(
                present: gate.forward.present.calls, owed: gate.owed, admissions: gate.forward.admissions.calls,
                admissionCount: gate.forward.admissions.count, ahead: gate.forward.admissions.ahead(of: user),
                course: gate.course, undos: gate.undo.waiting, concurrency: self.concurrency(limits),
                underWay: gate.forward.taken, rate: limits.callsPerSecond.map { max($0, 0.001) },
                pause: gate.nextStart.map { max(($0 - now).inSeconds, 0) } ?? 0, durations: gate.durations)
        }
        guard let backlog else { return nothing }
        return backlog.wait.map { CallOutlook(wait: $0, calls: backlog.calls) }
    }

    /// The one permit that a saga holds at a time.
    struct Holding {
        private let permits: Permits
        private let user: String
        private var kind: PermitKind?
        var isHeld: Bool { self.kind != nil }
        private var since = BootTime(nanoseconds: 0)
        /// What it is going to do after the call under way, as the gate knows it.
        private var owed: (gate: String, steps: ArraySlice<String>)?

        init(_ permits: Permits, user: String = "") {
            self.permits = permits
            self.user = user
        }

        /// Gives the permit in hand back and takes one of `kind`; none for `nil`.
        /// - Returns: whether it had to wait: then the machine is to be asked again, by the time that it is now.
        mutating func hold(_ kind: PermitKind?, _ errand: PermitErrand = PermitErrand()) async -> Bool {
            guard kind != self.kind else { return false }
            self.release()
            guard let kind else { return false }
            self.settle()
            let turn = await self.permits.take(kind, user: self.user, errand)
            guard turn != .gone else { return true }
            self.kind = kind
            self.since = self.permits.surroundings.now
            if !kind.isUndo, errand.steps.count > 1 { self.owed = (kind.gate, errand.steps.dropFirst()) }
            return turn == .come
        }

        /// - Parameter step: that called with the permit; `nil`: none did.
        mutating func release(after step: String? = nil) {
            if let kind = self.kind { self.permits.giveBack(kind, after: step.map { ($0, self.since) }) }
            self.kind = nil
        }

        /// The saga goes on without permits, or elsewhere.
        mutating func end() {
            self.release()
            self.settle()
        }

        private mutating func settle() {
            if let owed = self.owed { self.permits.settle(owed.steps, at: owed.gate) }
            self.owed = nil
        }
    }
}

extension SagaDefinition {
    /// What a call needs a permit for.
    ///
    /// - Parameter dependency: whom it calls, if calls to them are limited.
    func permit(for call: SagaMachine.StepCall, limitedAt dependency: String?) -> PermitKind {
        // From the pivot on a saga takes away, as an undo does.
        PermitKind(
            gate: dependency ?? self.steps[call.step].name,
            isUndo: call.kind == .compensate || self.steps[call.step].kind != .compensatable)
    }

    /// The steps from the current one on that have calls where that one has.
    func callsAhead(_ snapshot: SagaSnapshot) -> [String] {
        func dependency(_ step: StepDefinition) -> String? {
            guard case .remote(let remote) = step.action else { return nil }
            return remote.dependency(request: snapshot.request, outputs: snapshot.outputs) ?? step.name
        }
        guard self.steps.indices.contains(snapshot.stepIndex), let place = dependency(self.steps[snapshot.stepIndex])
        else { return [] }
        return self.steps[snapshot.stepIndex...].compactMap { dependency($0) == place ? $0.name : nil }
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
