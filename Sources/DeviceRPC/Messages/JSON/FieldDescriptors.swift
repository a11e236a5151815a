import Proto

extension UnsafePointer<ProtobufCMessageDescriptor> {
    var name: String { String(cString: self.pointee.name) }

    var fields: UnsafeBufferPointer<ProtobufCFieldDescriptor> {
        UnsafeBufferPointer(start: self.pointee.fields, count: Int(self.pointee.n_fields))
    }
}

extension ProtobufCFieldDescriptor {
    var isRepeated: Bool { self.label == PROTOBUF_C_LABEL_REPEATED }

    /// The name in JSON: underscores go, the letter after one is upper case.
    var jsonName: String {
        var result: [UInt8] = []
        var isAfterUnderscore = false
        for byte in String(cString: self.name).utf8 {
            if byte == UInt8(ascii: "_") {
                isAfterUnderscore = true
            } else {
                let isLower = (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                result.append(isAfterUnderscore && isLower ? byte - 32 : byte)
                isAfterUnderscore = false
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// Of a message field.
    var messageDescriptor: UnsafePointer<ProtobufCMessageDescriptor>? {
        guard self.type == PROTOBUF_C_TYPE_MESSAGE else { return nil }
        return self.descriptor?.assumingMemoryBound(to: ProtobufCMessageDescriptor.self)
    }

    /// The names and numbers of an enum field, by number.
    var enumValues: UnsafeBufferPointer<ProtobufCEnumValue> {
        guard self.type == PROTOBUF_C_TYPE_ENUM, let descriptor = self.descriptor else {
            return .init(start: nil, count: 0)
        }
        let enumeration = descriptor.assumingMemoryBound(to: ProtobufCEnumDescriptor.self)
        return UnsafeBufferPointer(start: enumeration.pointee.values, count: Int(enumeration.pointee.n_values))
    }

    /// The entry's value field if this is a `map<string, …>`. protoc-c turns a map into repeated entries and does not
    /// say so: an entry is called after its field and has a key (1) and a value (2).
    var mapValue: ProtobufCFieldDescriptor? {
        guard self.isRepeated, let entry = self.messageDescriptor, entry.fields.count == 2,
            String(cString: entry.pointee.short_name).lowercased() == (self.jsonName + "Entry").lowercased(),
            String(cString: entry.fields[0].name) == "key", entry.fields[0].type == PROTOBUF_C_TYPE_STRING,
            String(cString: entry.fields[1].name) == "value"
        else { return nil }
        return entry.fields[1]
    }
}

/// The message types whose JSON is not an object of their fields.
enum WellKnownMessage {
    case timestamp
    case duration
    case any

    init?(_ descriptor: UnsafePointer<ProtobufCMessageDescriptor>) {
        switch descriptor.name {
        case "google.protobuf.Timestamp": self = .timestamp
        case "google.protobuf.Duration": self = .duration
        case "google.protobuf.Any": self = .any
        default: return nil
        }
    }
}
