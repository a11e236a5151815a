/// A queue. Its memory is bounded by what waits in it, also if it is never quite empty: the places of elements that were
/// taken are given back once they are half of all.
struct FIFO<Element> {
    private var elements: [Element?] = []
    private var head = 0

    /// Below this many taken places it isn't worth moving the others.
    private static var minimumTaken: Int { 32 }

    var isEmpty: Bool { self.head == self.elements.count }
    var count: Int { self.elements.count - self.head }
    /// Places in memory, those of taken elements included.
    var slots: Int { self.elements.count }

    mutating func reserveCapacity(_ count: Int) { self.elements.reserveCapacity(self.head + count) }

    mutating func append(_ element: Element) { self.elements.append(element) }

    mutating func popFirst() -> Element? {
        guard self.head < self.elements.count else { return nil }
        let element = self.elements[self.head]
        self.elements[self.head] = nil
        self.head += 1
        if self.head == self.elements.count {
            self.elements.removeAll(keepingCapacity: self.head <= Self.minimumTaken)
            self.head = 0
        } else if self.head >= Self.minimumTaken, self.head * 2 >= self.elements.count {
            self.elements.removeFirst(self.head)
            self.head = 0
        }
        return element
    }

    /// Empties the queue.
    @discardableResult
    mutating func takeAll() -> [Element] {
        let rest = self.elements[self.head...].compactMap { $0 }
        self.elements = []
        self.head = 0
        return rest
    }
}

extension FIFO: Sendable where Element: Sendable {}
