import Synchronization

/// The days whose leaves may be addressed by name: those that the keeper has found attached, at most a minute ago.
///
/// A day that is not among them is reached through the parents, which is right for every day and slower. Rows are inserted
/// through the parents always, so that none goes into a leaf that has been detached meanwhile.
final class SagaDays: Sendable {
    /// Elements that lie on one leaf.
    struct Part<Element> {
        var leaf: SagaLeaf
        var elements: [Element]
    }

    private struct State {
        var days: Set<Int64> = []
        /// Those that may hold sagas that aren't over.
        var open: [Int64] = []
        /// Nothing else is attached. Only then the leaves are all that the parents have.
        var isComplete = false
        /// When the list was asked for.
        var asked = BootTime(nanoseconds: 0)
        /// Days whose leaf was missing, and when that was found.
        var missing: [Int64: BootTime] = [:]
    }

    /// An older list says nothing.
    static let trustedFor: Duration = .seconds(60)

    private let surroundings: Surroundings
    private let state = Mutex(State())

    init(_ surroundings: Surroundings = .real) { self.surroundings = surroundings }

    /// Takes in a list of all days.
    ///
    /// - Parameters:
    ///   - open: those of them that may hold sagas that aren't over, ascending.
    ///   - isComplete: nothing is attached but these days.
    ///   - asked: when it was asked for: what was found missing since is still missing from it.
    func learn(_ days: some Sequence<Int64>, open: [Int64] = [], isComplete: Bool = false, asked: BootTime) {
        self.state.withLock { state in
            guard asked >= state.asked else { return }
            state.missing = state.missing.filter { $0.value >= asked }
            state.days = Set(days).subtracting(state.missing.keys)
            state.open = open.filter { state.days.contains($0) }
            state.isComplete = isComplete && state.missing.isEmpty
            state.asked = asked
        }
    }

    /// One of these leaves isn't there (42P01): all are reached through the parents, until the next list.
    func forget(_ leaves: some Sequence<SagaLeaf>, now: BootTime? = nil) {
        let now = now ?? self.surroundings.now
        self.state.withLock { state in
            for day in leaves.compactMap(\.day) {
                state.days.remove(day)
                state.missing[day] = now
                state.isComplete = false
            }
        }
    }

    /// Every listed day, ascending; empty if the list is too old.
    func all(now: BootTime? = nil) -> [Int64] { self.trusted(now).sorted() }

    /// The leaves that hold every saga that isn't over, ascending; the parents where that isn't known.
    func open(now: BootTime? = nil) -> [SagaLeaf] {
        self.whole(now).map { $0.open.map { SagaLeaf(day: $0) } } ?? [.parent]
    }

    /// The leaves of all days, or those that hold every saga that isn't over, as far as ids before `position` may lie on them: in
    /// groups, the newest first; the parents where they aren't known.
    func groups(before position: String, isOpen: Bool = false, now: BootTime? = nil) -> [SagaLeafGroup] {
        guard let whole = self.whole(now) else { return [.parents] }
        let days = isOpen ? whole.open : Array(whole.days)
        // Whole groups, so that few statements serve for all lists.
        return SagaLeafGroup.groups(of: days.map { SagaLeaf(day: $0) }).reversed().filter { $0.bound < position }
    }

    /// The list, if the leaves on it are all there are.
    private func whole(_ now: BootTime?) -> (days: Set<Int64>, open: [Int64])? {
        let now = now ?? self.surroundings.now
        return self.state.withLock { state in
            guard state.isComplete, now - state.asked <= Self.trustedFor else { return nil }
            return (state.days, state.open)
        }
    }

    private func trusted(_ now: BootTime?) -> Set<Int64> {
        let now = now ?? self.surroundings.now
        return self.state.withLock { state in now - state.asked <= Self.trustedFor ? state.days : [] }
    }

    /// Elements by the leaves that their sagas lie on, in the order in which they come; one part for those of no listed day.
    func parts<Element>(
        _ elements: [Element], now: BootTime? = nil, of id: (Element) -> SagaID
    ) -> [Part<Element>] {
        let days = self.trusted(now)
        var parts: [Part<Element>] = []
        for element in elements {
            let day = PartitionKeeper.day(of: id(element))
            let leaf = days.contains(day) ? SagaLeaf(day: day) : .parent
            // Nearly always one day, or the same as that of the element before.
            if let last = parts.indices.last, parts[last].leaf == leaf {
                parts[last].elements.append(element)
            } else if let index = parts.firstIndex(where: { $0.leaf == leaf }) {
                parts[index].elements.append(element)
            } else {
                parts.append(Part(leaf: leaf, elements: [element]))
            }
        }
        return parts
    }

    /// Reads by leaves; again through the parents, if one of the leaves has gone since the list was made.
    func reading<Element, Value>(
        _ elements: [Element], of id: (Element) -> SagaID,
        _ read: ([Part<Element>]) async throws(PostgresError) -> Value
    ) async throws(PostgresError) -> Value {
        let parts = self.parts(elements, of: id)
        do throws(PostgresError) {
            return try await read(parts)
        } catch {
            guard error.isMissingTable, parts.contains(where: { !$0.leaf.isParent }) else { throw error }
            self.forget(parts.map(\.leaf))
            return try await read(self.parts(elements, of: id))
        }
    }
}

extension PostgresError {
    /// 42P01 undefined_table.
    var isMissingTable: Bool { self.code == .server && self.sqlstate == "42P01" }
}
