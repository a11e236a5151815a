import DeviceRPC

/// Enum values by the names that people type: any case, dashes or underscores, without the prefix.
enum EnumArgument {
    static func value<Value: ProtobufEnum>(_ text: String, _ flag: String) throws(UsageError) -> Value {
        // UNSPECIFIED is what leaving the option out says.
        if let value = Value(name: String(text.map { $0 == "-" ? "_" : $0 })), value.rawValue != 0 { return value }
        let names = Value.known.dropFirst().map { $0.value.shortName.lowercased() }.joined(separator: ", ")
        throw UsageError("\(flag): '\(text)' is no such value (allowed: \(names))")
    }
}
