import Synchronization

/// A value that several tasks change.
final class Shared<Value: Sendable>: Sendable {
    private let value: Mutex<Value>

    init(_ value: Value) { self.value = Mutex(value) }

    func withLock<Result: Sendable>(_ body: (inout Value) -> Result) -> Result {
        self.value.withLock { body(&$0) }
    }

    var current: Value { self.value.withLock { $0 } }
}

/// Gives out 0, 1, 2, …
final class Ticket: Sendable {
    private let counter = Atomic<Int>(0)

    func next() -> Int { self.counter.wrappingAdd(1, ordering: .relaxed).oldValue }
}
