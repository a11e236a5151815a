import Synchronization

/// Limits of many calls, watched by one sleeping task.
///
/// Nearly every call returns long before its limit, so that setting a limit and taking it back has to cost next to
/// nothing; a sleeping task for each costs more than the calls themselves.
final class Deadlines: Sendable {
    struct Entry: Sendable {
        fileprivate var deadline: BootTime
        fileprivate var number: UInt64
    }

    private struct State {
        /// A binary heap by deadline. Entries that were taken back stay until their time, or until they are too many.
        var heap: [Entry] = []
        var actions: [UInt64: @Sendable () -> Void] = [:]
        var nextNumber: UInt64 = 0
        var sleeper: Task<Void, Never>?
        var wakesAt: BootTime?
    }

    let surroundings: Surroundings
    private let state = Mutex(State())

    init(_ surroundings: Surroundings = .real) { self.surroundings = surroundings }

    /// Calls `action` after `delay`, unless the entry is removed before. `action` must not block.
    func add(after delay: Duration, _ action: @escaping @Sendable () -> Void) -> Entry {
        let deadline = self.surroundings.now + delay
        return self.state.withLock { state in
            let entry = Entry(deadline: deadline, number: state.nextNumber)
            state.nextNumber += 1
            state.actions[entry.number] = action
            if state.heap.count > 1024, state.heap.count > 4 * state.actions.count {
                let actions = state.actions
                state.heap = state.heap.filter { actions[$0.number] != nil }.sorted { $0.deadline < $1.deadline }
            }
            Self.push(entry, onto: &state.heap)
            if state.wakesAt.map({ deadline < $0 }) ?? true { self.sleep(until: deadline, &state) }
            return entry
        }
    }

    func remove(_ entry: Entry) {
        // Not destroyed under the lock: an action may be the last to hold something.
        let action = self.state.withLock { $0.actions.removeValue(forKey: entry.number) }
        _ = action
    }

    // MARK: The sleeping task

    private func sleep(until deadline: BootTime, _ state: inout State) {
        state.sleeper?.cancel()
        state.wakesAt = deadline
        state.sleeper = Task {
            guard (try? await self.surroundings.sleep(for: deadline - self.surroundings.now)) != nil else { return }
            self.wakeUp()
        }
    }

    private func wakeUp() {
        let now = self.surroundings.now
        let due = self.state.withLock { state in
            var due: [@Sendable () -> Void] = []
            while let first = state.heap.first {
                let action = state.actions[first.number]
                guard first.deadline <= now || action == nil else { break }
                Self.pop(from: &state.heap)
                state.actions[first.number] = nil
                if let action { due.append(action) }
            }
            state.sleeper = nil
            state.wakesAt = nil
            if let next = state.heap.first { self.sleep(until: next.deadline, &state) }
            return due
        }
        for action in due { action() }
    }

    // MARK: The heap

    private static func push(_ entry: Entry, onto heap: inout [Entry]) {
        heap.append(entry)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].deadline < heap[parent].deadline else { return }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private static func pop(from heap: inout [Entry]) {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count {
                if heap[child].deadline < heap[least].deadline { least = child }
            }
            if least == parent { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
