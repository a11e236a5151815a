@testable import DeviceProvisioning

/// Counts what users have, by increment and decrement: the user service. With keys, or without.
///
/// It answers with statuses of HTTP; what they mean is read by the product's own `QuotaAnswer`.
///
/// Unchecked: of one thread.
final class CountingService: @unchecked Sendable {
    let honoursKeys: Bool
    private(set) var counts: [String: Int] = [:]
    /// Sagas of which a request left without ever being answered for certain.
    private(set) var unanswered: Set<String> = []
    private var counted: Set<String> = []
    private var takenBack: Set<String> = []
    private var chance: Chance
    private let faults: Faults
    private let history: History

    init(seed: UInt64, honoursKeys: Bool, faults: Faults, history: History) {
        self.chance = Chance(seed: seed, stream: "counting")
        self.honoursKeys = honoursKeys
        self.faults = faults
        self.history = history
    }

    var there: Duration { self.chance.milliseconds(0.2, 3) }

    func left(_ saga: String) { self.unanswered.insert(saga) }

    /// The caller has a definite answer, and may draw its conclusions.
    func answered(_ saga: String) { self.unanswered.remove(saga) }

    enum Operation: Sendable, CustomStringConvertible {
        case increment(key: String)
        case decrement(compensating: String)

        var description: String {
            switch self {
            case .increment(let key): "increment \(key)"
            case .decrement(let key): "decrement \(key)"
            }
        }
    }

    /// The status of the answer.
    func serve(_ operation: Operation, saga: String) -> Reply<Int> {
        let soon = self.chance.milliseconds(1, 40)
        let refusal: Plan.Trouble = if case .increment = operation { .countingRefuses } else { .undoRefuses }
        if self.faults.strikes(refusal, &self.chance) {
            let status = self.chance.pick([429, 403, 401])
            self.history.note("counting", "\(operation): \(status), nothing counted")
            return Reply(answer: status, after: soon)
        }
        guard self.faults.strikes(.countingLoses, &self.chance) else {
            self.count(operation, saga)
            return Reply(answer: 200, after: soon)
        }
        let isCounted = self.chance.happens(0.6)
        // 408 and 5xx may be a proxy's word, which knows nothing.
        let status = self.chance.pick([408, 500, 502, nil])
        self.history.note(
            "counting",
            "\(operation): \(status.map(String.init) ?? "no answer"), \(isCounted ? "counted" : "not counted")")
        if isCounted { self.count(operation, saga) }
        return Reply(answer: status, after: soon)
    }

    private func count(_ operation: Operation, _ saga: String) {
        switch operation {
        case .increment(let key):
            if self.honoursKeys, !self.counted.insert(key).inserted || self.takenBack.contains(key) { return }
            self.counts[saga, default: 0] += 1
        case .decrement(let key):
            if self.honoursKeys {
                // A key that comes after this counts no more.
                guard self.takenBack.insert(key).inserted, self.counted.contains(key) else { return }
            }
            self.counts[saga, default: 0] -= 1
        }
        self.history.note("counting", "\(operation) -> \(self.counts[saga] ?? 0)")
    }
}
