/// What is to be done later, the next first: a binary heap.
///
/// A run has some tens of thousands of these, and the simulator is built for debugging, where whatever is generic is slow: what
/// is compared and moved are plain numbers in plain memory.
struct Timers {
    private struct Entry {
        var due: Int64
        /// Decides between timers of one instant.
        var order: UInt64
        /// Where its action is.
        var slot: Int

        func isBefore(_ other: Entry) -> Bool {
            self.due < other.due || self.due == other.due && self.order < other.order
        }
    }

    private var entries = UnsafeMutablePointer<Entry>.allocate(capacity: Self.initialCapacity)
    private var capacity = Self.initialCapacity
    private var count = 0
    private var actions: [(() -> Void)?] = []
    private var freeSlots: [Int] = []

    private static let initialCapacity = 1024

    mutating func push(due: Int64, order: UInt64, _ action: @escaping () -> Void) {
        let slot: Int
        if let free = self.freeSlots.popLast() {
            slot = free
            self.actions[slot] = action
        } else {
            slot = self.actions.count
            self.actions.append(action)
        }
        if self.count == self.capacity { self.grow() }
        let entry = Entry(due: due, order: order, slot: slot)
        var child = self.count
        self.count += 1
        while child > 0 {
            let parent = (child - 1) / 2
            if !entry.isBefore(self.entries[parent]) { break }
            self.entries[child] = self.entries[parent]
            child = parent
        }
        self.entries[child] = entry
    }

    mutating func pop() -> (due: Int64, action: () -> Void)? {
        guard self.count > 0 else { return nil }
        let first = self.entries[0]
        self.count -= 1
        let entry = self.entries[self.count]
        var parent = 0
        while true {
            var child = 2 * parent + 1
            if child >= self.count { break }
            if child + 1 < self.count, self.entries[child + 1].isBefore(self.entries[child]) { child += 1 }
            if !self.entries[child].isBefore(entry) { break }
            self.entries[parent] = self.entries[child]
            parent = child
        }
        self.entries[parent] = entry
        guard let action = self.actions[first.slot] else { return nil }
        self.actions[first.slot] = nil
        self.freeSlots.append(first.slot)
        return (first.due, action)
    }

    mutating func removeAll() {
        self.count = 0
        self.actions = []
        self.freeSlots = []
    }

    /// There is one of these in a process: what it has had is never given back.
    private mutating func grow() {
        let larger = UnsafeMutablePointer<Entry>.allocate(capacity: 2 * self.capacity)
        larger.moveInitialize(from: self.entries, count: self.capacity)
        self.entries.deallocate()
        self.entries = larger
        self.capacity *= 2
    }
}
