/// Calls that wait for a connection, or for a free stream on it; first in, first out, and bounded.
///
/// Calls that are over leave their places empty until there are more such places than calls.
struct CallQueue<Call: AnyObject> {
    let limit: Int
    private var places: [Call?] = []
    private var head = 0
    private(set) var count = 0

    init(limit: Int) { self.limit = limit }

    var isEmpty: Bool { self.count == 0 }

    /// False if it is full.
    mutating func append(_ call: Call) -> Bool {
        guard self.count < self.limit else { return false }
        self.places.append(call)
        self.count += 1
        return true
    }

    mutating func popFirst() -> Call? {
        self.skipEmptyPlaces()
        guard self.head < self.places.count, let call = self.places[self.head] else { return nil }
        self.empty(self.head)
        return call
    }

    mutating func remove(_ call: Call) {
        guard let index = self.places[self.head...].firstIndex(where: { $0 === call }) else { return }
        self.empty(index)
    }

    /// Takes out the calls for which the condition holds.
    mutating func removeAll(where condition: (Call) -> Bool) -> [Call] {
        let calls = self.places[self.head...].compactMap { $0 }
        let kept = calls.filter { !condition($0) }
        self.places = kept
        self.head = 0
        self.count = kept.count
        return calls.filter(condition)
    }

    private mutating func empty(_ index: Int) {
        self.places[index] = nil
        self.count -= 1
        self.skipEmptyPlaces()
        guard self.places.count > 2 * self.count + 32 else { return }
        self.places = self.places[self.head...].filter { $0 != nil }
        self.head = 0
    }

    private mutating func skipEmptyPlaces() {
        while self.head < self.places.count, self.places[self.head] == nil { self.head += 1 }
    }
}
