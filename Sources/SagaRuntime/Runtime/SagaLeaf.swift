import Synchronization

/// The tables of one day: its partition ("leaf") of `saga_state` and of `saga_event`, or the parents of all days.
///
/// A plan over a parent opens the partitions of all days. Only an INSERT doesn't: it finds its leaf by the id.
struct SagaLeaf: Hashable, Sendable {
    /// Days since the epoch; `nil`: all of them.
    let day: Int64?

    static let parent = SagaLeaf(day: nil)

    var isParent: Bool { self.day == nil }
    var state: String { "saga_state" + self.suffix }
    var event: String { "saga_event" + self.suffix }
    /// `_20261130`; empty for the parents.
    var suffix: String { self.day.map { "_" + PartitionKeeper.name(of: $0) } ?? "" }
}

/// Leaves within sixteen days, read together: few at a time, so that no statement opens and locks those of all days.
struct SagaLeafGroup: Hashable, Sendable {
    static let length: Int64 = 16

    /// The first of the sixteen days, a multiple of sixteen, so that few statements serve for all; `nil`: the parents.
    let start: Int64?
    /// Which of them, the first by the lowest bit.
    private(set) var days: UInt16

    static let parents = SagaLeafGroup(.parent)

    /// This one alone.
    init(_ leaf: SagaLeaf) {
        guard let day = leaf.day else {
            (self.start, self.days) = (nil, 0)
            return
        }
        let offset = (day % Self.length + Self.length) % Self.length
        (self.start, self.days) = (day - offset, 1 << UInt16(offset))
    }

    /// All of these leaves, in groups, ascending.
    static func groups(of leaves: some Sequence<SagaLeaf>) -> [SagaLeafGroup] {
        var groups: [Int64: SagaLeafGroup] = [:]
        for leaf in leaves {
            let group = SagaLeafGroup(leaf)
            guard let start = group.start else { return [.parents] }
            groups[start, default: group].days |= group.days
        }
        return groups.sorted { $0.key < $1.key }.map(\.value)
    }

    /// Ascending.
    var leaves: [SagaLeaf] {
        guard let start else { return [.parent] }
        return (0..<Self.length).filter { self.days & (1 << UInt16($0)) != 0 }.map { SagaLeaf(day: start + $0) }
    }

    /// Every id on them is at or after it.
    var bound: String { self.leaves.first?.day.map { PartitionKeeper.bound($0) } ?? "" }

    /// A relation of `columns` of all these leaves, to be searched by an index of each, newest first.
    func relation(_ table: (SagaLeaf) -> String, _ columns: String) -> String {
        let parts = self.leaves.reversed().map { "SELECT \(columns) FROM \(table($0))" }
        return "(" + parts.joined(separator: " UNION ALL ") + ")"
    }

    /// Says which days they are. Empty for the parents.
    var suffix: String {
        self.start.map { "_" + PartitionKeeper.name(of: $0) + "_" + String(self.days, radix: 16) } ?? ""
    }
}

/// The statements of a component that address leaves, each text made once.
final class LeafStatements: Sendable {
    private struct Key: Hashable {
        var name: String
        var group: SagaLeafGroup
        var isOfGroup: Bool
    }

    /// More are made anew: a bound, far above what is in use at a time.
    private static let capacity = 1024

    private let made = Mutex<[Key: SQLStatement]>([:])

    /// The statement called `name` on a leaf.
    ///
    /// - Parameter text: its SQL; asked for once for each leaf.
    func statement(_ name: String, on leaf: SagaLeaf, _ text: (SagaLeaf) -> String) -> SQLStatement {
        self.statement(Key(name: name, group: SagaLeafGroup(leaf), isOfGroup: false), leaf.suffix) { text(leaf) }
    }

    /// The statement called `name` on leaves that are read together.
    func statement(_ name: String, over group: SagaLeafGroup, _ text: (SagaLeafGroup) -> String) -> SQLStatement {
        self.statement(Key(name: name, group: group, isOfGroup: true), group.suffix) { text(group) }
    }

    private func statement(_ key: Key, _ suffix: String, _ text: () -> String) -> SQLStatement {
        self.made.withLock { made in
            if let statement = made[key] { return statement }
            if made.count >= Self.capacity { made.removeAll() }
            // The day comes first: what a server cuts off a long name is its end.
            let days = (key.isOfGroup ? "days" : "day") + suffix
            let statement = SQLStatement(suffix.isEmpty ? key.name : "\(days)_\(key.name)", text())
            made[key] = statement
            return statement
        }
    }
}
