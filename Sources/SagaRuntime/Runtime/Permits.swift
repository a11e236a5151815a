import Synchronization

/// How many calls may be under way per step and direction. Undo has permits of its own, so that forward work never
/// starves it.
final class Permits: Sendable {
    private struct Gate {
        var taken = 0
        /// Sagas that are there already.
        var waiting: [CheckedContinuation<Bool, Never>] = []
        /// New ones; they give way.
        var admissions: [CheckedContinuation<Bool, Never>] = []

        /// False: all are taken, and `continuation` has its place in the queue.
        mutating func take(
            _ limit: Int, isAdmission: Bool, orQueue continuation: CheckedContinuation<Bool, Never>
        ) -> Bool {
            if self.taken < limit {
                self.taken += 1
                return true
            }
            if isAdmission { self.admissions.append(continuation) } else { self.waiting.append(continuation) }
            return false
        }

        mutating func popFirst() -> CheckedContinuation<Bool, Never>? {
            if !self.waiting.isEmpty { return self.waiting.removeFirst() }
            return self.admissions.isEmpty ? nil : self.admissions.removeFirst()
        }
    }

    private struct State {
        var gates: [String: Gate] = [:]
        /// Nobody waits any more.
        var isOpen = false
    }

    private let limit: Int
    private let state = Mutex(State())

    init(limit: Int) { self.limit = limit }

    /// True if it had to wait.
    private func take(_ name: String, isAdmission: Bool) async -> Bool {
        await withCheckedContinuation { (continuation: CheckedContinuation<Bool, Never>) in
            let isFree = self.state.withLock { state in
                let limit = state.isOpen ? Int.max : self.limit
                return state.gates[name, default: Gate()].take(limit, isAdmission: isAdmission, orQueue: continuation)
            }
            if isFree { continuation.resume(returning: false) }
        }
    }

    private func giveBack(_ name: String) {
        // A permit passes straight to whoever has waited longest, and to a new saga last.
        let next = self.state.withLock { state -> CheckedContinuation<Bool, Never>? in
            guard var gate = state.gates[name] else { return nil }
            let next = gate.popFirst()
            if next == nil { gate.taken -= 1 }
            state.gates[name] = gate
            return next
        }
        next?.resume(returning: true)
    }

    /// A draining server starts no more calls: those who wait are told so by whoever they ask next, not by a permit.
    func endWaits() {
        let waiting = self.state.withLock { state in
            state.isOpen = true
            var waiting: [CheckedContinuation<Bool, Never>] = []
            for name in Array(state.gates.keys) {
                while let next = state.gates[name]?.popFirst() {
                    state.gates[name]?.taken += 1
                    waiting.append(next)
                }
            }
            return waiting
        }
        for continuation in waiting { continuation.resume(returning: true) }
    }

    /// How many wait for one of these.
    func waiting(_ name: String) -> Int {
        self.state.withLock { ($0.gates[name]?.waiting.count ?? 0) + ($0.gates[name]?.admissions.count ?? 0) }
    }

    /// The one permit that a saga holds at a time.
    struct Holding {
        private let permits: Permits
        private var name: String?

        init(_ permits: Permits) { self.permits = permits }

        /// Gives the permit in hand back and takes one for `name`; none for `nil`.
        /// - Returns: whether it had to wait: then the machine is to be asked again, by the time that it is now.
        mutating func hold(_ name: String?, isAdmission: Bool = false) async -> Bool {
            guard name != self.name else { return false }
            self.release()
            guard let name else { return false }
            let hasWaited = await self.permits.take(name, isAdmission: isAdmission)
            self.name = name
            return hasWaited
        }

        mutating func release() {
            if let name = self.name { self.permits.giveBack(name) }
            self.name = nil
        }
    }
}

extension SagaDefinition {
    /// What a call needs a permit for: step and direction.
    func permit(for call: SagaMachine.StepCall) -> String {
        let name = self.steps[call.step].name
        return call.kind == .compensate ? "undo of \(name)" : name
    }

    /// What the saga calls once `record` is committed: step and direction; `nil` if nothing.
    func permit(after record: SagaRecord) -> String? {
        let snapshot = record.granted.snapshot
        // What turns a saga back, or records a failed attempt, is never kept waiting, nor a result by a step whose doubt costs
        // nothing: their permits are taken at the call.
        guard snapshot.status == .running, record.kind != .retry, record.kind != .adopt,
            self.steps.indices.contains(snapshot.stepIndex)
        else { return nil }
        let step = self.steps[snapshot.stepIndex]
        guard case .remote(let remote) = step.action, !remote.isRepeatable else { return nil }
        return step.name
    }
}
