/// What a case found wrong.
struct Failure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

func expect(_ condition: Bool, _ what: @autoclosure () -> String) throws {
    if !condition { throw Failure(what()) }
}

func expectEqual<Value: Equatable>(_ seen: Value, _ wanted: Value, _ what: String) throws {
    if seen != wanted { throw Failure("\(what): \(seen), expected \(wanted)") }
}
