/// Why bytes are not the message that they should be. For the peer that sent them; never holds what was in them.
public struct MessageDecodingError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Reason: String, Sendable {
        /// The bytes end inside a field.
        case truncated = "ends inside a field"
        /// A number is longer than its kind can be (protobuf encoding guide, "Base 128 Varints").
        case malformedNumber = "holds a number longer than the format allows"
        /// A field number of 0, beyond 2^29 - 1, or an unknown wire type.
        case malformedTag = "holds a malformed field tag"
        /// Wire types 3 and 4, which proto3 never writes.
        case group = "holds a group, which is not supported"
        /// The field is there, but encoded as another type.
        case wireTypeMismatch = "is encoded as another type"
        case invalidUTF8 = "is not valid UTF-8"
        /// U+0000, which neither the decoder nor the database can keep.
        case nul = "holds a NUL character"
        /// No text has that, and to compare such strings takes the square of their length.
        case tooManyMarks = "has too many combining marks in a row"
        /// A message field that is not `repeated` is there more than once: legal, but written by no encoder.
        case repeatedMessage = "comes more than once, which is not supported"
        case tooDeep = "is nested too deeply"
        case tooManyFields = "holds too many fields"
        /// Decoded, the message would take more memory than its size justifies.
        case tooMuchMemory = "is malformed, or takes too much memory when decoded"
    }

    public var reason: Reason
    /// The message type's full name, e.g. `cloudphone.device.v1.DeviceSpec`.
    public var messageName: String
    /// The field's name in the contract, where one is to blame.
    public var fieldName: String?
    /// The names of the fields that it lies in, from the outermost on.
    public var enclosingFields: [String] = []

    /// The field as `google.rpc.BadRequest` names it, e.g. `spec.android_version`.
    public var fieldPath: String { (self.enclosingFields + [self.fieldName ?? ""]).joined(separator: ".") }

    public var description: String {
        if let fieldName = self.fieldName {
            "cannot parse \(self.messageName): \(fieldName) \(self.reason.rawValue)"
        } else {
            "cannot parse \(self.messageName): it \(self.reason.rawValue)"
        }
    }
}

/// How much a message may hold, whatever its bytes claim.
public struct DecodingLimits: Sendable {
    /// Messages inside messages. The contract needs 4.
    public var maximumDepth: Int
    /// Fields in all nested messages together, elements of packed fields included.
    public var maximumFields: Int
    /// Memory while decoding: this, and `memoryPerByte` for each byte of the message.
    public var baseMemory: Int
    public var memoryPerByte: Int
    /// Combining marks in a row in a string: 30 are more than any text has (Unicode's Stream-Safe Text Format, UAX #15).
    public var maximumMarks = 30

    /// What a caller sends.
    public static let request = DecodingLimits(
        maximumDepth: 32, maximumFields: 50_000, baseMemory: 64 * 1024, memoryPerByte: 8)
    /// What a server that we called sends: larger, and of small fields.
    public static let response = DecodingLimits(
        maximumDepth: 32, maximumFields: 1_000_000, baseMemory: 64 * 1024, memoryPerByte: 24, maximumMarks: .max)
}
