import Proto

/// An enum of the contract. Values that this build doesn't know are kept.
public protocol ProtobufEnum: RawRepresentable<Int32>, Hashable, Sendable, CustomStringConvertible {
    init(rawValue: Int32)
    /// All values that the contract names, by number.
    static var known: [(name: String, value: Self)] { get }
    /// What every name of the enum begins with, e.g. `DEVICE_TYPE_`.
    static var prefix: String { get }
}

extension ProtobufEnum {
    /// The name in the contract, e.g. `DEVICE_TYPE_PHONE`; `nil` for a number that it doesn't know.
    public var name: String? { Self.known.first { $0.value == self }?.name }

    /// The name without its prefix, e.g. `PHONE`; the number for a value that the contract doesn't know.
    public var shortName: String {
        guard let name = self.name else { return String(self.rawValue) }
        return String(name.dropFirst(Self.prefix.utf8.count))
    }

    public var isKnown: Bool { self.name != nil }

    public var description: String { self.shortName }

    /// The value called so in the contract, with or without its prefix, in any case.
    public init?(name: String) {
        let name = name.uppercased()
        guard let found = Self.known.first(where: { $0.name == name || $0.name == Self.prefix + name }) else {
            return nil
        }
        self = found.value
    }

    static func values(of descriptor: ProtobufCEnumDescriptor) -> [(name: String, value: Self)] {
        (0..<Int(descriptor.n_values)).map { index in
            let value = descriptor.values[index]
            return (String(cString: value.name), Self(rawValue: value.value))
        }
    }

    /// The C value of a field.
    var wire: UInt32 { UInt32(bitPattern: self.rawValue) }

    init(wire: UInt32) { self.init(rawValue: Int32(bitPattern: wire)) }
}
