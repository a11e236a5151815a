/// What a flush is about, the most important first.
enum FlushImportance: Int, CaseIterable, Sendable {
    /// Something may have to be taken back.
    case undo
    /// A saga that was let in goes on.
    case completion
    /// A new saga; it gives way to all others.
    case admission
}

/// What waits for a flush, in order of importance: what is more important goes first, and among equals what came first.
///
/// Nothing starves: a saga has one record in the queue at most, and undo and completion are only as many as admission has
/// let in before.
struct FlushQueue<Element> {
    private var lanes: [[Element]] = Array(repeating: [], count: FlushImportance.allCases.count)

    var count: Int { self.lanes.reduce(0) { $0 + $1.count } }
    var isEmpty: Bool { self.lanes.allSatisfy(\.isEmpty) }

    func count(of importance: FlushImportance) -> Int { self.lanes[importance.rawValue].count }

    mutating func append(_ element: Element, _ importance: FlushImportance) {
        self.lanes[importance.rawValue].append(element)
    }

    /// All of one importance.
    mutating func take(of importance: FlushImportance) -> [Element] {
        defer { self.lanes[importance.rawValue] = [] }
        return self.lanes[importance.rawValue]
    }

    /// The next ones, up to `limit`.
    mutating func take(_ limit: Int) -> [Element] {
        var taken: [Element] = []
        taken.reserveCapacity(min(limit, self.count))
        for lane in self.lanes.indices where taken.count < limit && !self.lanes[lane].isEmpty {
            let count = min(self.lanes[lane].count, limit - taken.count)
            taken += self.lanes[lane].prefix(count)
            self.lanes[lane].removeFirst(count)
        }
        return taken
    }
}

extension SagaRecord {
    var importance: FlushImportance {
        if self.birth != nil { return .admission }
        return self.granted.snapshot.failure == nil ? .completion : .undo
    }
}
