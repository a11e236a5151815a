/// Everything that is wrong with a request, found in one go. Becomes INVALID_ARGUMENT with `google.rpc.BadRequest`.
public struct InvalidRequest: Error, Sendable, Equatable, CustomStringConvertible {
    /// In the order of the request's fields.
    public internal(set) var violations: [GoogleRPC.FieldViolation]
    /// Violations that were found and left out, since all of them would not fit in a trailer.
    public internal(set) var omitted: Int

    public init(_ violations: [GoogleRPC.FieldViolation]) {
        self.violations = violations
        self.omitted = 0
    }

    /// The first one, and how many more there are.
    public var description: String {
        guard let first = self.violations.first else { return "the request is invalid" }
        let more = self.violations.count - 1 + self.omitted
        return more == 0 ? first.description : "\(first) (and \(more) more)"
    }
}

/// Collects violations while a request is checked.
struct FieldChecker {
    /// What fits beside everything else into the 8 KiB of headers that clients accept, once base64-encoded.
    private static let maximumBytes = 3 * 1024

    private var invalid = InvalidRequest([])
    private var bytes = 0

    mutating func violated(_ field: String, _ explanation: String) {
        let size = field.utf8.count + explanation.utf8.count + 8
        guard self.bytes + size <= Self.maximumBytes else {
            self.invalid.omitted += 1
            return
        }
        self.bytes += size
        self.invalid.violations.append(GoogleRPC.FieldViolation(field: field, explanation: explanation))
    }

    /// Throws what was found, if anything.
    func finish() throws(InvalidRequest) {
        guard self.invalid.violations.isEmpty, self.invalid.omitted == 0 else { throw self.invalid }
    }

    // MARK: The rules that several fields share

    /// Lengths count Unicode scalars.
    mutating func length(_ text: String, _ range: ClosedRange<Int>, _ field: String, note: String = "") {
        let count = text.unicodeScalars.count
        guard !range.contains(count) else { return }
        let allowed = range.lowerBound == 0 ? "up to \(range.upperBound)" : "\(range.lowerBound) to \(range.upperBound)"
        self.violated(field, "must have \(allowed) characters\(note), has \(count)")
    }

    /// Ids of the caller's own: `request_id`, `batch_id`.
    mutating func identifier(_ text: String, _ field: String) {
        guard text.utf8.count > 64 || !text.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) else { return }
        self.violated(field, "must be up to 64 printable ASCII characters")
    }

    mutating func owner(_ text: String, _ field: String) {
        self.length(text, 0...256, field)
    }

    mutating func known<Value: ProtobufEnum>(_ value: Value, _ field: String) {
        guard !value.isKnown else { return }
        self.violated(field, "must be one of \(Self.names(Value.known)), is \(value.rawValue)")
    }

    /// Elements of a filter: known, and not UNSPECIFIED, which no record has.
    mutating func filter<Value: ProtobufEnum>(_ values: [Value], _ field: String) {
        for (index, value) in values.enumerated() where !value.isKnown || value.rawValue == 0 {
            let names = Self.names(Value.known.filter { $0.value.rawValue != 0 })
            self.violated("\(field)[\(index)]", "must be one of \(names), is \(value.rawValue)")
        }
    }

    private static func names<Value>(_ known: [(name: String, value: Value)]) -> String {
        known.map(\.name).joined(separator: ", ")
    }

    /// A number for which 0 means the default.
    mutating func number(_ value: UInt32, _ range: ClosedRange<UInt32>, default standard: UInt32, _ field: String)
        -> UInt32
    {
        guard value != 0 else { return standard }
        if !range.contains(value) {
            self.violated(
                field, "must be \(range.lowerBound) to \(range.upperBound), or 0 for \(standard); is \(value)")
        }
        return value
    }

    mutating func pageSize(_ value: UInt32) -> Int {
        if value > 1000 { self.violated("page_size", "must be up to 1000, or 0 for 100; is \(value)") }
        return value == 0 ? 100 : Int(value)
    }

    /// An id as the database writes it: lower case.
    mutating func deviceID(_ text: String, _ field: String = "device_id", isOptional: Bool = false) -> String {
        if isOptional && text.isEmpty { return "" }
        let bytes = Array(text.utf8)
        let isUUID =
            bytes.count == 36
            && bytes.enumerated().allSatisfy { index, byte in
                if [8, 13, 18, 23].contains(index) { return byte == UInt8(ascii: "-") }
                return (48...57).contains(byte) || (65...70).contains(byte) || (97...102).contains(byte)
            }
        if !isUUID { self.violated(field, "must be a UUID, such as 123e4567-e89b-12d3-a456-426614174000") }
        return text.lowercased()
    }

    /// How long a saga may take, where it has a limit.
    mutating func sagaTimeout(_ timeout: ProtobufDuration?) -> Duration {
        guard let timeout else { return .seconds(600) }
        if let duration = timeout.duration, (.seconds(1) ... .seconds(86_400)).contains(duration) { return duration }
        self.violated("saga_timeout", "must be 1 s to 24 h")
        return .seconds(600)
    }

    mutating func metadata(_ map: [String: String], _ field: String) {
        if map.count > 32 { self.violated(field, "must have up to 32 entries, has \(map.count)") }
        for (key, value) in map.sorted(by: { $0.key < $1.key }) {
            let path = Self.path(field, key: key)
            let keyLength = key.unicodeScalars.count
            if !(1...64).contains(keyLength) {
                self.violated(path, "its key must have 1 to 64 characters, has \(keyLength)")
            }
            self.length(value, 0...256, path)
        }
    }

    /// `metadata.key`; a long key is cut, and what is no printable character replaced.
    static func path(_ field: String, key: String) -> String {
        var shown = String.UnicodeScalarView()
        for scalar in key.unicodeScalars.prefix(64) {
            shown.append(scalar.value < 0x20 || scalar.value == 0x7f ? "\u{FFFD}" : scalar)
        }
        return "\(field).\(String(shown))\(key.unicodeScalars.count > 64 ? "…" : "")"
    }
}
