import DeviceProvisioning
import Proto

/// Builds C messages from JSON.
struct ProtoJSONReader {
    private let arena: MessageArena

    init(arena: MessageArena) { self.arena = arena }

    /// A message in the arena.
    ///
    /// - Parameter path: where the message stands in the document, for complaints; empty for the whole.
    func message(
        _ json: JSONValue, of descriptor: UnsafePointer<ProtobufCMessageDescriptor>, path: String
    ) throws(ProtoJSONError) -> UnsafeMutablePointer<ProtobufCMessage> {
        let memory = UnsafeMutableRawPointer(self.arena.allocate(UInt8.self, count: descriptor.pointee.sizeof_message))
        protobuf_c_message_init(descriptor, memory)
        let message = memory.assumingMemoryBound(to: ProtobufCMessage.self)
        switch WellKnownMessage(descriptor) {
        case .timestamp:
            guard case .string(let text) = json.content, let time = RFC3339.parse(text) else {
                throw self.failure("a time such as \"2026-01-31T12:00:00Z\" expected", json, path)
            }
            memory.withMemoryRebound(to: Google__Protobuf__Timestamp.self, capacity: 1) {
                $0.pointee.seconds = time.seconds
                $0.pointee.nanos = time.nanos
            }
        case .duration:
            guard case .string(let text) = json.content, let duration = DurationText.parse(text) else {
                throw self.failure("a duration such as \"600s\" expected", json, path)
            }
            memory.withMemoryRebound(to: Google__Protobuf__Duration.self, capacity: 1) {
                $0.pointee.seconds = duration.seconds
                $0.pointee.nanos = duration.nanos
            }
        case .any:
            throw self.failure("packed messages cannot be read from JSON", json, path)
        case nil:
            guard case .object(let members) = json.content else {
                throw self.failure("an object expected, not \(json.kind)", json, path)
            }
            for (key, value) in members {
                let path = path.isEmpty ? key : "\(path).\(key)"
                guard
                    let field = descriptor.fields.first(where: { $0.jsonName == key || String(cString: $0.name) == key }
                    )
                else {
                    let names = descriptor.fields.map(\.jsonName).joined(separator: ", ")
                    throw self.failure("no such field; there are \(names)", value, path)
                }
                if case .null = value.content { continue }  // null is the default
                try self.set(field, of: memory, to: value, path: path)
            }
        }
        return message
    }

    private func set(
        _ field: ProtobufCFieldDescriptor, of message: UnsafeMutableRawPointer, to json: JSONValue, path: String
    ) throws(ProtoJSONError) {
        let place = message + Int(field.offset)
        guard field.isRepeated else { return try self.setValue(field, at: place, to: json, path: path) }
        let count: Int
        let elements: UnsafeMutableRawPointer
        if let value = field.mapValue, let entryDescriptor = field.messageDescriptor {
            guard case .object(let members) = json.content else {
                throw self.failure("an object expected, not \(json.kind)", json, path)
            }
            count = members.count
            let entries = self.arena.allocate(UnsafeMutableRawPointer?.self, count: count)
            for (index, member) in members.enumerated() {
                let path = "\(path)[\"\(member.key)\"]"
                let entry = UnsafeMutableRawPointer(
                    self.arena.allocate(UInt8.self, count: entryDescriptor.pointee.sizeof_message))
                protobuf_c_message_init(entryDescriptor, entry)
                let key = JSONValue(content: .string(member.key), offset: member.value.offset)
                try self.setValue(
                    entryDescriptor.fields[0], at: entry + Int(entryDescriptor.fields[0].offset), to: key, path: path)
                try self.setValue(value, at: entry + Int(value.offset), to: member.value, path: path)
                entries[index] = entry
            }
            elements = UnsafeMutableRawPointer(entries)
        } else {
            guard case .array(let values) = json.content else {
                throw self.failure("an array expected, not \(json.kind)", json, path)
            }
            count = values.count
            elements = UnsafeMutableRawPointer(self.arena.allocate(UInt64.self, count: count * 2))
            for (index, value) in values.enumerated() {
                try self.setValue(field, at: elements + index * field.elementSize, to: value, path: "\(path)[\(index)]")
            }
        }
        message.storeBytes(of: count, toByteOffset: Int(field.quantifier_offset), as: Int.self)
        place.storeBytes(of: elements, as: UnsafeMutableRawPointer?.self)
    }

    private func setValue(
        _ field: ProtobufCFieldDescriptor, at place: UnsafeMutableRawPointer, to json: JSONValue, path: String
    ) throws(ProtoJSONError) {
        switch field.type {
        case PROTOBUF_C_TYPE_STRING:
            guard case .string(let text) = json.content else {
                throw self.failure("a string expected, not \(json.kind)", json, path)
            }
            guard !text.utf8.contains(0) else { throw self.failure("a NUL character is not allowed", json, path) }
            place.storeBytes(of: self.arena.string(text), as: UnsafeMutablePointer<CChar>?.self)
        case PROTOBUF_C_TYPE_BYTES:
            guard case .string(let text) = json.content, let bytes = Base64Text.decode(text) else {
                throw self.failure("base64 in a string expected", json, path)
            }
            place.storeBytes(of: self.arena.bytes(bytes), as: ProtobufCBinaryData.self)
        case PROTOBUF_C_TYPE_MESSAGE:
            guard let descriptor = field.messageDescriptor else { return }
            let message = UnsafeMutableRawPointer(try self.message(json, of: descriptor, path: path))
            place.storeBytes(of: message, as: UnsafeMutableRawPointer?.self)
        case PROTOBUF_C_TYPE_BOOL:
            guard case .bool(let value) = json.content else {
                throw self.failure("true or false expected, not \(json.kind)", json, path)
            }
            place.storeBytes(of: value ? 1 : 0, as: Int32.self)
        case PROTOBUF_C_TYPE_ENUM:
            place.storeBytes(of: try self.enumeration(field, json, path), as: Int32.self)
        case PROTOBUF_C_TYPE_UINT32, PROTOBUF_C_TYPE_FIXED32:
            place.storeBytes(of: try self.integer(json, path), as: UInt32.self)
        case PROTOBUF_C_TYPE_INT32, PROTOBUF_C_TYPE_SINT32, PROTOBUF_C_TYPE_SFIXED32:
            place.storeBytes(of: try self.integer(json, path), as: Int32.self)
        case PROTOBUF_C_TYPE_UINT64, PROTOBUF_C_TYPE_FIXED64:
            place.storeBytes(of: try self.integer(json, path), as: UInt64.self)
        case PROTOBUF_C_TYPE_INT64, PROTOBUF_C_TYPE_SINT64, PROTOBUF_C_TYPE_SFIXED64:
            place.storeBytes(of: try self.integer(json, path), as: Int64.self)
        default:
            throw self.failure("fields of this type are not supported", json, path)  // float, double: there are none
        }
    }

    private func enumeration(
        _ field: ProtobufCFieldDescriptor, _ json: JSONValue, _ path: String
    ) throws(ProtoJSONError) -> Int32 {
        switch json.content {
        case .string(let name):
            if let value = field.enumValues.first(where: { String(cString: $0.name) == name }) { return value.value }
        case .number(let digits):
            if let number = Int32(digits) { return number }
        default: break
        }
        let names = field.enumValues.map { String(cString: $0.name) }.joined(separator: ", ")
        throw self.failure("one of \(names) expected", json, path)
    }

    /// A number, or a string that holds one. Whole numbers may be written with a fraction or an exponent.
    private func integer<Value: FixedWidthInteger>(
        _ json: JSONValue, _ path: String
    ) throws(ProtoJSONError) -> Value {
        let text: String?
        switch json.content {
        case .number(let digits): text = digits
        case .string(let digits): text = digits
        default: text = nil
        }
        if let text, !text.hasPrefix("+") {
            if let value = Value(text) { return value }
            if text.utf8.allSatisfy({ "0123456789.eE+-".utf8.contains($0) }), let double = Double(text),
                let value = Value(exactly: double)
            {
                return value
            }
        }
        throw self.failure("a whole number from \(Value.min) to \(Value.max) expected", json, path)
    }

    private func failure(_ problem: String, _ json: JSONValue, _ path: String) -> ProtoJSONError {
        ProtoJSONError(path.isEmpty ? problem : "\(path): \(problem)", at: json.offset)
    }
}
