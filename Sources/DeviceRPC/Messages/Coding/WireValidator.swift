import Glibc
import Proto

/// One pass over the wire bytes of a message before protobuf-c unpacks them, closing what protobuf-c leaves open: strings
/// are checked to be UTF-8 without NUL (protobuf-c would cut them there), depth and number of fields are bounded, and
/// every number, tag and length is checked. Unknown fields are skipped. Driven by the generated descriptors.
struct WireValidator {
    private let maximumDepth: Int
    private let maximumMarks: Int
    private var fieldsLeft: Int

    init(limits: DecodingLimits) {
        self.maximumDepth = limits.maximumDepth
        self.maximumMarks = limits.maximumMarks
        self.fieldsLeft = limits.maximumFields
    }

    /// Checks that `bytes` are a message of the type that `descriptor` describes.
    mutating func validate(
        _ bytes: UnsafeRawBufferPointer, as descriptor: UnsafePointer<ProtobufCMessageDescriptor>
    ) throws(MessageDecodingError) {
        try self.validate(bytes, as: descriptor, depth: 1)
    }

    private mutating func validate(
        _ bytes: UnsafeRawBufferPointer, as descriptor: UnsafePointer<ProtobufCMessageDescriptor>, depth: Int
    ) throws(MessageDecodingError) {
        func failure(
            _ reason: MessageDecodingError.Reason, _ field: UnsafePointer<ProtobufCFieldDescriptor>? = nil
        ) -> MessageDecodingError {
            MessageDecodingError(
                reason: reason, messageName: String(cString: descriptor.pointee.name),
                fieldName: field.map { String(cString: $0.pointee.name) })
        }

        guard depth <= self.maximumDepth else { throw failure(.tooDeep) }
        var cursor = WireCursor(bytes)
        var messageFieldsSeen: UInt64 = 0
        while !cursor.isAtEnd {
            self.fieldsLeft -= 1
            guard self.fieldsLeft >= 0 else { throw failure(.tooManyFields) }
            // A tag and a length are 32-bit numbers: 5 bytes at most.
            let tag: UInt64
            switch cursor.readVarint(maximumBytes: 5) {
            case .value(let value): tag = value
            case .truncated: throw failure(.truncated)
            case .malformed: throw failure(.malformedNumber)
            }
            let number = tag >> 3
            guard number > 0, number < 1 << 29, let wireType = WireType(rawValue: UInt8(tag & 7)) else {
                throw failure(.malformedTag)
            }
            let field = Self.field(UInt32(number), of: descriptor)
            switch wireType {
            case .varint:
                switch cursor.readVarint(maximumBytes: 10) {
                case .value: break
                case .truncated: throw failure(.truncated, field)
                case .malformed: throw failure(.malformedNumber, field)
                }
            case .fixed64:
                guard cursor.read(8) != nil else { throw failure(.truncated, field) }
            case .fixed32:
                guard cursor.read(4) != nil else { throw failure(.truncated, field) }
            case .startGroup, .endGroup:
                throw failure(.group, field)
            case .lengthDelimited:
                let length: UInt64
                switch cursor.readVarint(maximumBytes: 5) {
                case .value(let value): length = value
                case .truncated: throw failure(.truncated, field)
                case .malformed: throw failure(.malformedNumber, field)
                }
                guard let payload = cursor.read(length) else { throw failure(.truncated, field) }
                guard let field else { continue }
                switch field.pointee.type {
                case PROTOBUF_C_TYPE_STRING:
                    guard !Self.holdsNUL(payload) else { throw failure(.nul, field) }
                    guard Self.isUTF8(payload) else { throw failure(.invalidUTF8, field) }
                    guard !self.hasTooManyMarks(payload) else { throw failure(.tooManyMarks, field) }
                case PROTOBUF_C_TYPE_MESSAGE:
                    guard let nested = field.pointee.descriptor else { throw failure(.wireTypeMismatch, field) }
                    if field.pointee.label != PROTOBUF_C_LABEL_REPEATED {
                        // They would have to be merged, but protobuf-c 1.4.1 loses the numbers of all but the last one.
                        let bit = UInt64(1) << UInt64(field.pointee.id % 64)
                        guard messageFieldsSeen & bit == 0 else { throw failure(.repeatedMessage, field) }
                        messageFieldsSeen |= bit
                    }
                    do throws(MessageDecodingError) {
                        try self.validate(
                            payload, as: nested.assumingMemoryBound(to: ProtobufCMessageDescriptor.self),
                            depth: depth + 1)
                    } catch {
                        var error = error
                        error.enclosingFields.insert(String(cString: field.pointee.name), at: 0)
                        throw error
                    }
                case PROTOBUF_C_TYPE_BYTES:
                    break
                default:
                    guard field.pointee.label == PROTOBUF_C_LABEL_REPEATED else {
                        throw failure(.wireTypeMismatch, field)
                    }
                    // A packed element takes a byte at least.
                    self.fieldsLeft -= payload.count
                    guard self.fieldsLeft >= 0 else { throw failure(.tooManyFields, field) }
                    if WireType(of: field.pointee.type) == .varint {
                        var elements = WireCursor(payload)
                        while !elements.isAtEnd {
                            switch elements.readVarint(maximumBytes: 10) {
                            case .value: break
                            case .truncated: throw failure(.truncated, field)
                            case .malformed: throw failure(.malformedNumber, field)
                            }
                        }
                    }
                }
                continue
            }
            if let field, WireType(of: field.pointee.type) != wireType { throw failure(.wireTypeMismatch, field) }
        }
    }

    /// The descriptor of field `number`, `nil` if the message has none. Numbers are dense in nearly every message.
    private static func field(
        _ number: UInt32, of descriptor: UnsafePointer<ProtobufCMessageDescriptor>
    ) -> UnsafePointer<ProtobufCFieldDescriptor>? {
        let count = descriptor.pointee.n_fields
        guard count > 0, let fields = descriptor.pointee.fields else { return nil }
        if number <= count, fields[Int(number) - 1].id == number { return fields + (Int(number) - 1) }
        return protobuf_c_message_descriptor_get_field(descriptor, number)
    }

    private static func holdsNUL(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return false }
        return memchr(base, 0, bytes.count) != nil
    }

    /// Swift compares and hashes strings in their normal form. To find that of a run of marks takes the square of its
    /// length: seconds for a key of a map that takes a few hundred bytes when compressed.
    private func hasTooManyMarks(_ bytes: UnsafeRawBufferPointer) -> Bool {
        // A mark has two bytes at least, and the first of all, U+0300, begins with this one.
        guard bytes.count / 2 > self.maximumMarks, bytes.contains(where: { $0 >= 0xCC }) else { return false }
        var marks = 0
        for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
            let isMark = scalar.value >= 0x300 && scalar.properties.canonicalCombiningClass != .notReordered
            marks = isMark ? marks + 1 : 0
            if marks > self.maximumMarks { return true }
        }
        return false
    }

    private static func isUTF8(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.withMemoryRebound(to: UInt8.self) { (try? UTF8Span(validating: $0.span)) != nil }
    }
}

/// The low three bits of a field tag.
private enum WireType: UInt8 {
    case varint = 0
    case fixed64 = 1
    case lengthDelimited = 2
    case startGroup = 3
    case endGroup = 4
    case fixed32 = 5

    /// How a single value of the type is encoded.
    init(of type: ProtobufCType) {
        switch type {
        case PROTOBUF_C_TYPE_STRING, PROTOBUF_C_TYPE_BYTES, PROTOBUF_C_TYPE_MESSAGE: self = .lengthDelimited
        case PROTOBUF_C_TYPE_FIXED64, PROTOBUF_C_TYPE_SFIXED64, PROTOBUF_C_TYPE_DOUBLE: self = .fixed64
        case PROTOBUF_C_TYPE_FIXED32, PROTOBUF_C_TYPE_SFIXED32, PROTOBUF_C_TYPE_FLOAT: self = .fixed32
        default: self = .varint
        }
    }
}

/// Reads forward over wire bytes and never past their end.
private struct WireCursor {
    enum Varint {
        case value(UInt64)
        case truncated
        case malformed
    }

    private let bytes: UnsafeRawBufferPointer
    private var position = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { self.position >= self.bytes.count }

    mutating func readVarint(maximumBytes: Int) -> Varint {
        var value: UInt64 = 0
        for index in 0..<maximumBytes {
            guard self.position < self.bytes.count else { return .truncated }
            let byte = self.bytes[self.position]
            self.position += 1
            value |= UInt64(byte & 0x7f) << UInt64(7 * index)
            if byte < 0x80 { return .value(value) }
        }
        return .malformed
    }

    mutating func read(_ length: UInt64) -> UnsafeRawBufferPointer? {
        guard length <= UInt64(self.bytes.count - self.position) else { return nil }
        let start = self.position
        self.position += Int(length)
        return UnsafeRawBufferPointer(rebasing: self.bytes[start..<self.position])
    }
}
