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

/// The statements of a component that address leaves, each text made once.
final class LeafStatements: Sendable {
    private struct Key: Hashable {
        var name: String
        var leaf: SagaLeaf
    }

    /// More are made anew: a bound, far above what is in use at a time.
    private static let capacity = 1024

    private let made = Mutex<[Key: SQLStatement]>([:])

    /// The statement called `name` on a leaf.
    ///
    /// - Parameter text: its SQL; asked for once for each leaf.
    func statement(_ name: String, on leaf: SagaLeaf, _ text: (SagaLeaf) -> String) -> SQLStatement {
        self.made.withLock { made in
            let key = Key(name: name, leaf: leaf)
            if let statement = made[key] { return statement }
            if made.count >= Self.capacity { made.removeAll() }
            // The day comes first: what a server cuts off a long name is its end.
            let statement = SQLStatement(leaf.isParent ? name : "day\(leaf.suffix)_\(name)", text(leaf))
            made[key] = statement
            return statement
        }
    }
}
