import Testing

// `#expect` takes its expression apart and cannot hold a mutating call; these can.

func expectEqual<Value: Equatable>(_ seen: Value, _ wanted: Value, at location: SourceLocation = #_sourceLocation) {
    #expect(seen == wanted, sourceLocation: location)
}

func expect(_ condition: Bool, at location: SourceLocation = #_sourceLocation) {
    #expect(condition, sourceLocation: location)
}
