/// A JSON text that was read: outputs of earlier steps, answers of services. Nothing in it is trusted.
enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    /// As it was written; `Int` and `Double` don't hold all that JSON allows.
    case number(String)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// Text that is not JSON, too deep or too long.
    struct Malformed: Error, Equatable {
        /// Where reading ended, in bytes.
        var offset: Int
    }

    /// Longest text that is read at all.
    static let maximumBytes = 64 * 1024
    static let maximumDepth = 16

    init(parsing text: String) throws(Malformed) {
        try self.init(parsing: Array(text.utf8))
    }

    init(parsing bytes: [UInt8]) throws(Malformed) {
        guard bytes.count <= Self.maximumBytes else { throw Malformed(offset: Self.maximumBytes) }
        var parser = JSONParser(bytes: bytes)
        self = try parser.document()
    }

    subscript(key: String) -> JSONValue? {
        if case .object(let members) = self { members[key] } else { nil }
    }

    var string: String? {
        if case .string(let value) = self { value } else { nil }
    }

    var integer: Int? {
        if case .number(let value) = self { Int(value) } else { nil }
    }

    var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }

    /// An object whose values are all strings.
    var strings: [String: String]? {
        guard case .object(let members) = self else { return nil }
        var strings: [String: String] = [:]
        for (key, value) in members {
            guard let value = value.string else { return nil }
            strings[key] = value
        }
        return strings
    }
}

/// RFC 8259, recursive descent with a bound on the depth.
private struct JSONParser {
    let bytes: [UInt8]
    var offset = 0

    init(bytes: [UInt8]) { self.bytes = bytes }

    private var malformed: JSONValue.Malformed { JSONValue.Malformed(offset: self.offset) }

    private var next: UInt8? { self.offset < self.bytes.count ? self.bytes[self.offset] : nil }

    mutating func document() throws(JSONValue.Malformed) -> JSONValue {
        let value = try self.value(depth: 0)
        self.skipSpace()
        guard self.next == nil else { throw self.malformed }
        return value
    }

    private mutating func skipSpace() {
        while let byte = self.next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { self.offset += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard self.next == byte else { return false }
        self.offset += 1
        return true
    }

    private mutating func expect(_ text: StaticString, _ value: JSONValue) throws(JSONValue.Malformed) -> JSONValue {
        let count = text.utf8CodeUnitCount
        guard self.offset + count <= self.bytes.count else { throw self.malformed }
        let matches = text.withUTF8Buffer { self.bytes[self.offset..<self.offset + count].elementsEqual($0) }
        guard matches else { throw self.malformed }
        self.offset += count
        return value
    }

    private mutating func value(depth: Int) throws(JSONValue.Malformed) -> JSONValue {
        guard depth < JSONValue.maximumDepth else { throw self.malformed }
        self.skipSpace()
        switch self.next {
        case UInt8(ascii: "{"): return try self.object(depth: depth)
        case UInt8(ascii: "["): return try self.array(depth: depth)
        case UInt8(ascii: "\""): return .string(try self.string())
        case UInt8(ascii: "t"): return try self.expect("true", .bool(true))
        case UInt8(ascii: "f"): return try self.expect("false", .bool(false))
        case UInt8(ascii: "n"): return try self.expect("null", .null)
        case .some: return try self.number()
        case nil: throw self.malformed
        }
    }

    private mutating func object(depth: Int) throws(JSONValue.Malformed) -> JSONValue {
        self.offset += 1
        var members: [String: JSONValue] = [:]
        self.skipSpace()
        if self.take(UInt8(ascii: "}")) { return .object(members) }
        while true {
            self.skipSpace()
            guard self.next == UInt8(ascii: "\"") else { throw self.malformed }
            let key = try self.string()
            self.skipSpace()
            guard self.take(UInt8(ascii: ":")) else { throw self.malformed }
            members[key] = try self.value(depth: depth + 1)
            self.skipSpace()
            if self.take(UInt8(ascii: "}")) { return .object(members) }
            guard self.take(UInt8(ascii: ",")) else { throw self.malformed }
        }
    }

    private mutating func array(depth: Int) throws(JSONValue.Malformed) -> JSONValue {
        self.offset += 1
        var elements: [JSONValue] = []
        self.skipSpace()
        if self.take(UInt8(ascii: "]")) { return .array(elements) }
        while true {
            elements.append(try self.value(depth: depth + 1))
            self.skipSpace()
            if self.take(UInt8(ascii: "]")) { return .array(elements) }
            guard self.take(UInt8(ascii: ",")) else { throw self.malformed }
        }
    }

    private mutating func number() throws(JSONValue.Malformed) -> JSONValue {
        let start = self.offset
        _ = self.take(UInt8(ascii: "-"))
        let integerStart = self.offset
        guard self.digits() > 0 else { throw self.malformed }
        if self.bytes[integerStart] == UInt8(ascii: "0"), self.offset - integerStart > 1 { throw self.malformed }
        if self.take(UInt8(ascii: ".")), self.digits() == 0 { throw self.malformed }
        if self.next == UInt8(ascii: "e") || self.next == UInt8(ascii: "E") {
            self.offset += 1
            if !self.take(UInt8(ascii: "+")) { _ = self.take(UInt8(ascii: "-")) }
            guard self.digits() > 0 else { throw self.malformed }
        }
        return .number(String(decoding: self.bytes[start..<self.offset], as: UTF8.self))
    }

    private mutating func digits() -> Int {
        let start = self.offset
        while let byte = self.next, (0x30...0x39).contains(byte) { self.offset += 1 }
        return self.offset - start
    }

    private mutating func string() throws(JSONValue.Malformed) -> String {
        self.offset += 1
        let start = self.offset
        // Most strings have no escape: one copy.
        while let byte = self.next, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 {
            self.offset += 1
        }
        if self.take(UInt8(ascii: "\"")) {
            return String(decoding: self.bytes[start..<self.offset - 1], as: UTF8.self)
        }
        var content = Array(self.bytes[start..<self.offset])
        while let byte = self.next {
            self.offset += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: content, as: UTF8.self)
            case UInt8(ascii: "\\"): content.append(contentsOf: try self.escape())
            case 0..<0x20: throw self.malformed
            default: content.append(byte)
            }
        }
        throw self.malformed
    }

    private mutating func escape() throws(JSONValue.Malformed) -> [UInt8] {
        guard let byte = self.next else { throw self.malformed }
        self.offset += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0C]
        case UInt8(ascii: "n"): return [0x0A]
        case UInt8(ascii: "r"): return [0x0D]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "u"):
            let unit = try self.codeUnit()
            guard (0xD800..<0xDC00).contains(unit) else {
                // A low surrogate alone becomes the replacement character.
                return Array(String(Unicode.Scalar(unit).map(Character.init) ?? "\u{FFFD}").utf8)
            }
            guard self.take(UInt8(ascii: "\\")), self.take(UInt8(ascii: "u")) else { throw self.malformed }
            let low = try self.codeUnit()
            guard (0xDC00..<0xE000).contains(low) else { throw self.malformed }
            let scalar = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
            return Array(String(Unicode.Scalar(scalar).map(Character.init) ?? "\u{FFFD}").utf8)
        default: throw self.malformed
        }
    }

    private mutating func codeUnit() throws(JSONValue.Malformed) -> UInt32 {
        var unit: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = self.next else { throw self.malformed }
            switch byte {
            case 0x30...0x39: unit = unit << 4 | UInt32(byte - 0x30)
            case 0x41...0x46: unit = unit << 4 | UInt32(byte - 0x41 + 10)
            case 0x61...0x66: unit = unit << 4 | UInt32(byte - 0x61 + 10)
            default: throw self.malformed
            }
            self.offset += 1
        }
        return unit
    }
}
