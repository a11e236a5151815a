import Proto

/// Writes a C message as JSON.
struct ProtoJSONWriter {
    private var bytes: [UInt8] = []
    private let options: ProtoJSON.WritingOptions
    private var depth = 0

    init(options: ProtoJSON.WritingOptions) { self.options = options }

    var text: String { String(decoding: self.bytes, as: UTF8.self) }

    /// - Parameter message: any generated message; every one begins with a `ProtobufCMessage`.
    mutating func write<CMessage>(_ message: UnsafeMutablePointer<CMessage>) {
        self.write(message: UnsafeRawPointer(message))
    }

    private mutating func write(message: UnsafeRawPointer) {
        guard let descriptor = message.load(as: ProtobufCMessage.self).descriptor else { return self.raw("null") }
        switch WellKnownMessage(descriptor) {
        case .timestamp:
            let timestamp = message.load(as: Google__Protobuf__Timestamp.self)
            self.string(RFC3339.text(seconds: timestamp.seconds, nanos: timestamp.nanos))
        case .duration:
            let duration = message.load(as: Google__Protobuf__Duration.self)
            self.string(DurationText.text(seconds: duration.seconds, nanos: duration.nanos))
        case .any:
            self.writeAny(message.load(as: Google__Protobuf__Any.self))
        case nil:
            self.open("{")
            self.writeFields(of: message, descriptor)
            self.close("}")
        }
    }

    private mutating func writeFields(
        of message: UnsafeRawPointer, _ descriptor: UnsafePointer<ProtobufCMessageDescriptor>, isFirst: Bool = true
    ) {
        var isFirst = isFirst
        for field in descriptor.fields {
            guard self.options.includesDefaults || !Self.isDefault(field, of: message) else { continue }
            if !field.isRepeated, field.messageDescriptor != nil, Self.pointer(field, of: message) == nil { continue }
            self.member(field.jsonName, isFirst: &isFirst)
            self.writeField(field, of: message)
        }
    }

    private mutating func writeField(_ field: ProtobufCFieldDescriptor, of message: UnsafeRawPointer) {
        let place = message + Int(field.offset)
        guard field.isRepeated else { return self.writeValue(field, at: place) }
        let count = message.load(fromByteOffset: Int(field.quantifier_offset), as: Int.self)
        let elements = UnsafeRawPointer(place.load(as: UnsafeMutableRawPointer?.self))
        if let value = field.mapValue {
            self.open("{")
            var isFirst = true
            for index in 0..<count {
                guard let entry = elements?.load(fromByteOffset: index * 8, as: UnsafeMutableRawPointer?.self) else {
                    continue
                }
                // key and value are the two members behind the base.
                let key = (UnsafeRawPointer(entry) + MemoryLayout<ProtobufCMessage>.size).load(
                    as: UnsafeMutablePointer<CChar>?.self)
                self.member(String(wire: key), isFirst: &isFirst)
                self.writeValue(value, at: UnsafeRawPointer(entry) + Int(value.offset))
            }
            self.close("}")
        } else {
            self.open("[")
            var isFirst = true
            for index in 0..<count {
                guard let elements else { break }
                self.separate(isFirst: &isFirst)
                self.writeValue(field, at: elements + index * field.elementSize)
            }
            self.close("]")
        }
    }

    private mutating func writeValue(_ field: ProtobufCFieldDescriptor, at place: UnsafeRawPointer) {
        switch field.type {
        case PROTOBUF_C_TYPE_STRING:
            self.string(String(wire: place.load(as: UnsafeMutablePointer<CChar>?.self)))
        case PROTOBUF_C_TYPE_BYTES:
            self.string(Base64Text.encode([UInt8](wire: place.load(as: ProtobufCBinaryData.self))))
        case PROTOBUF_C_TYPE_MESSAGE:
            if let message = place.load(as: UnsafeMutableRawPointer?.self) {
                self.write(message: UnsafeRawPointer(message))
            } else {
                self.raw("null")
            }
        case PROTOBUF_C_TYPE_BOOL:
            self.raw(place.load(as: Int32.self) != 0 ? "true" : "false")
        case PROTOBUF_C_TYPE_ENUM:
            let number = place.load(as: Int32.self)
            if let value = field.enumValues.first(where: { $0.value == number }) {
                self.string(String(cString: value.name))
            } else {
                self.raw(String(number))
            }
        case PROTOBUF_C_TYPE_UINT32, PROTOBUF_C_TYPE_FIXED32:
            self.raw(String(place.load(as: UInt32.self)))
        case PROTOBUF_C_TYPE_INT32, PROTOBUF_C_TYPE_SINT32, PROTOBUF_C_TYPE_SFIXED32:
            self.raw(String(place.load(as: Int32.self)))
        case PROTOBUF_C_TYPE_UINT64, PROTOBUF_C_TYPE_FIXED64:
            self.string(String(place.load(as: UInt64.self)))
        case PROTOBUF_C_TYPE_INT64, PROTOBUF_C_TYPE_SINT64, PROTOBUF_C_TYPE_SFIXED64:
            self.string(String(place.load(as: Int64.self)))
        default:
            self.raw("null")  // float and double: the contract has none
        }
    }

    /// A packed message: its own members beside `@type` where the type is one of ours, else its bytes.
    private mutating func writeAny(_ any: Google__Protobuf__Any) {
        let typeURL = String(wire: any.type_url)
        let value = [UInt8](wire: any.value)
        self.open("{")
        var isFirst = true
        self.member("@type", isFirst: &isFirst)
        self.string(typeURL)
        let descriptor = Self.packable.first { typeURL.hasSuffix("/" + $0().name) }?()
        let isWritten = value.withUnsafeBytes { bytes -> Bool in
            guard let descriptor else { return false }
            var copy = self  // what a failure leaves half-written is dropped
            let result: Void? = try? MessageArena.withValidated(bytes, as: descriptor, limits: .response) {
                message, _ in
                copy.writeFields(of: UnsafeRawPointer(message), descriptor, isFirst: false)
            }
            guard result != nil else { return false }
            self = copy
            return true
        }
        if !isWritten {
            self.member("value", isFirst: &isFirst)
            self.string(Base64Text.encode(value))
        }
        self.close("}")
    }

    private static let packable: [@Sendable () -> UnsafePointer<ProtobufCMessageDescriptor>] = [
        { GoogleRPC.ErrorInfo.descriptor }, { GoogleRPC.BadRequest.descriptor }, { GoogleRPC.RetryInfo.descriptor },
        { GoogleRPC.ResourceInfo.descriptor },
    ]

    // MARK: Fields of C messages

    private static func pointer(
        _ field: ProtobufCFieldDescriptor, of message: UnsafeRawPointer
    ) -> UnsafeMutableRawPointer? {
        message.load(fromByteOffset: Int(field.offset), as: UnsafeMutableRawPointer?.self)
    }

    private static func isDefault(_ field: ProtobufCFieldDescriptor, of message: UnsafeRawPointer) -> Bool {
        if field.isRepeated { return message.load(fromByteOffset: Int(field.quantifier_offset), as: Int.self) == 0 }
        switch field.type {
        case PROTOBUF_C_TYPE_STRING:
            guard let text = Self.pointer(field, of: message) else { return true }
            return text.load(as: CChar.self) == 0
        case PROTOBUF_C_TYPE_MESSAGE: return Self.pointer(field, of: message) == nil
        default:
            // Numbers, booleans, enums, and the length that a ProtobufCBinaryData begins with.
            let place = message + Int(field.offset)
            return (0..<field.elementSize).allSatisfy { place.load(fromByteOffset: $0, as: UInt8.self) == 0 }
        }
    }

    // MARK: Text

    private mutating func raw(_ text: String) { self.bytes.append(contentsOf: text.utf8) }

    private mutating func open(_ bracket: String) {
        self.raw(bracket)
        self.depth += 1
    }

    private mutating func close(_ bracket: String) {
        self.depth -= 1
        let isEmpty = self.bytes.last == UInt8(ascii: "{") || self.bytes.last == UInt8(ascii: "[")
        if !isEmpty { self.newLine() }
        self.raw(bracket)
    }

    private mutating func newLine() {
        guard self.options.isPretty else { return }
        self.raw("\n")
        self.bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: 2 * self.depth))
    }

    private mutating func separate(isFirst: inout Bool) {
        if !isFirst { self.raw(",") }
        isFirst = false
        self.newLine()
    }

    private mutating func member(_ name: String, isFirst: inout Bool) {
        self.separate(isFirst: &isFirst)
        self.string(name)
        self.raw(self.options.isPretty ? ": " : ":")
    }

    private mutating func string(_ text: String) {
        self.raw("\"")
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): self.raw("\\\"")
            case UInt8(ascii: "\\"): self.raw("\\\\")
            case UInt8(ascii: "\n"): self.raw("\\n")
            case UInt8(ascii: "\r"): self.raw("\\r")
            case UInt8(ascii: "\t"): self.raw("\\t")
            case 0..<0x20, 0x7f:
                let digits = Array("0123456789abcdef".utf8)
                self.raw("\\u00")
                self.bytes.append(digits[Int(byte >> 4)])
                self.bytes.append(digits[Int(byte & 15)])
            default: self.bytes.append(byte)
            }
        }
        self.raw("\"")
    }
}

extension ProtobufCFieldDescriptor {
    /// The size of one value of the field in a C struct or array.
    var elementSize: Int {
        switch self.type {
        case PROTOBUF_C_TYPE_STRING, PROTOBUF_C_TYPE_MESSAGE: MemoryLayout<UnsafeMutableRawPointer?>.size
        case PROTOBUF_C_TYPE_BYTES: MemoryLayout<ProtobufCBinaryData>.size
        case PROTOBUF_C_TYPE_INT64, PROTOBUF_C_TYPE_SINT64, PROTOBUF_C_TYPE_SFIXED64, PROTOBUF_C_TYPE_UINT64,
            PROTOBUF_C_TYPE_FIXED64, PROTOBUF_C_TYPE_DOUBLE:
            8
        default: 4  // numbers of 32 bits, enums, and booleans (an int)
        }
    }
}
