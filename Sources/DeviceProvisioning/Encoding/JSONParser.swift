/// Reads JSON (RFC 8259): strict, with a bound on nesting, refusing a key that comes twice.
package struct JSONParser {
    private static let maximumDepth = 64
    private static let fewMembers = 16
    /// Longest text that is read from the journal or a service.
    static let maximumStoredBytes = 64 * 1024

    private let bytes: [UInt8]
    private var position = 0

    /// Parses a whole document.
    package static func parse(_ text: String) throws(JSONError) -> JSONValue {
        var parser = JSONParser(text)
        parser.skipWhitespace()
        let value = try parser.parseValue(depth: 1)
        parser.skipWhitespace()
        guard parser.position == parser.bytes.count else { throw parser.failure("text after the end of the value") }
        return value
    }

    /// Parses documents with nothing but white space between them.
    package static func parseSequence(_ text: String) throws(JSONError) -> [JSONValue] {
        var parser = JSONParser(text)
        var values: [JSONValue] = []
        parser.skipWhitespace()
        while parser.position < parser.bytes.count {
            values.append(try parser.parseValue(depth: 1))
            parser.skipWhitespace()
        }
        return values
    }

    private init(_ text: String) { self.bytes = Array(text.utf8) }

    private func failure(_ problem: String) -> JSONError {
        JSONError(problem: problem, offset: self.position)
    }

    private mutating func skipWhitespace() {
        while let byte = self.next, byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d { self.position += 1 }
    }

    private var next: UInt8? { self.position < self.bytes.count ? self.bytes[self.position] : nil }

    private mutating func parseValue(depth: Int) throws(JSONError) -> JSONValue {
        guard depth <= Self.maximumDepth else { throw self.failure("more than \(Self.maximumDepth) levels") }
        let offset = self.position
        let content: JSONValue.Content
        switch self.next {
        case UInt8(ascii: "{"): content = .object(try self.parseObject(depth: depth))
        case UInt8(ascii: "["): content = .array(try self.parseArray(depth: depth))
        case UInt8(ascii: "\""): content = .string(try self.parseString())
        case UInt8(ascii: "t"):
            try self.expect("true")
            content = .bool(true)
        case UInt8(ascii: "f"):
            try self.expect("false")
            content = .bool(false)
        case UInt8(ascii: "n"):
            try self.expect("null")
            content = .null
        case let byte? where byte == UInt8(ascii: "-") || (48...57).contains(byte):
            content = .number(try self.parseNumber())
        case nil: throw self.failure("the text ends where a value should be")
        default: throw self.failure("not a JSON value")
        }
        return JSONValue(content: content, offset: offset)
    }

    private mutating func expect(_ word: String) throws(JSONError) {
        guard self.bytes[self.position...].starts(with: word.utf8) else { throw self.failure("not a JSON value") }
        self.position += word.utf8.count
    }

    private mutating func parseObject(depth: Int) throws(JSONError) -> [(key: String, value: JSONValue)] {
        var members: [(key: String, value: JSONValue)] = []
        // For few members looking at each is quicker than a set of them.
        var keys: Set<String> = []
        self.position += 1
        self.skipWhitespace()
        if self.next == UInt8(ascii: "}") {
            self.position += 1
            return members
        }
        while true {
            guard self.next == UInt8(ascii: "\"") else { throw self.failure("a member name in quotes expected") }
            let start = self.position
            let key = try self.parseString()
            if members.count == Self.fewMembers { keys = Set(members.map(\.key)) }
            let isNew =
                members.count < Self.fewMembers
                ? !members.contains { $0.key == key } : keys.insert(key).inserted
            guard isNew else {
                self.position = start
                throw self.failure("\"\(key)\" comes twice")
            }
            self.skipWhitespace()
            guard self.next == UInt8(ascii: ":") else { throw self.failure("':' expected") }
            self.position += 1
            self.skipWhitespace()
            members.append((key, try self.parseValue(depth: depth + 1)))
            if try self.isAtEnd(of: UInt8(ascii: "}"), called: "}") { return members }
        }
    }

    private mutating func parseArray(depth: Int) throws(JSONError) -> [JSONValue] {
        var elements: [JSONValue] = []
        self.position += 1
        self.skipWhitespace()
        if self.next == UInt8(ascii: "]") {
            self.position += 1
            return elements
        }
        while true {
            elements.append(try self.parseValue(depth: depth + 1))
            if try self.isAtEnd(of: UInt8(ascii: "]"), called: "]") { return elements }
        }
    }

    /// After an element: consumes the comma or the closing bracket; true for the latter.
    private mutating func isAtEnd(of closing: UInt8, called name: String) throws(JSONError) -> Bool {
        self.skipWhitespace()
        switch self.next {
        case closing:
            self.position += 1
            return true
        case UInt8(ascii: ","):
            self.position += 1
            self.skipWhitespace()
            return false
        default:
            throw self.failure("',' or '\(name)' expected")
        }
    }

    private mutating func parseNumber() throws(JSONError) -> String {
        let start = self.position
        func isDigit(_ byte: UInt8?) -> Bool { byte.map { (48...57).contains($0) } ?? false }
        if self.next == UInt8(ascii: "-") { self.position += 1 }
        if self.next == UInt8(ascii: "0") {
            self.position += 1
        } else {
            guard isDigit(self.next) else { throw self.failure("a digit expected") }
            while isDigit(self.next) { self.position += 1 }
        }
        if self.next == UInt8(ascii: ".") {
            self.position += 1
            guard isDigit(self.next) else { throw self.failure("a digit expected") }
            while isDigit(self.next) { self.position += 1 }
        }
        if self.next == UInt8(ascii: "e") || self.next == UInt8(ascii: "E") {
            self.position += 1
            if self.next == UInt8(ascii: "+") || self.next == UInt8(ascii: "-") { self.position += 1 }
            guard isDigit(self.next) else { throw self.failure("a digit expected") }
            while isDigit(self.next) { self.position += 1 }
        }
        return String(decoding: self.bytes[start..<self.position], as: UTF8.self)
    }

    private mutating func parseString() throws(JSONError) -> String {
        self.position += 1
        let start = self.position
        // Most strings have no escape: one copy.
        while let byte = self.next, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 {
            self.position += 1
        }
        var utf8 = self.bytes[start..<self.position]
        while let byte = self.next {
            switch byte {
            case UInt8(ascii: "\""):
                self.position += 1
                // The text came as a String, so the bytes between escapes are valid UTF-8.
                return String(decoding: utf8, as: UTF8.self)
            case UInt8(ascii: "\\"):
                self.position += 1
                try self.parseEscape(into: &utf8)
            case 0..<0x20:
                throw self.failure("an unescaped control character in a string")
            default:
                utf8.append(byte)
                self.position += 1
            }
        }
        throw self.failure("a string without an end")
    }

    private mutating func parseEscape(into utf8: inout ArraySlice<UInt8>) throws(JSONError) {
        guard let byte = self.next else { throw self.failure("a string without an end") }
        self.position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): utf8.append(byte)
        case UInt8(ascii: "b"): utf8.append(0x08)
        case UInt8(ascii: "f"): utf8.append(0x0c)
        case UInt8(ascii: "n"): utf8.append(0x0a)
        case UInt8(ascii: "r"): utf8.append(0x0d)
        case UInt8(ascii: "t"): utf8.append(0x09)
        case UInt8(ascii: "u"):
            var value = try self.parseHexadecimal()
            if (0xd800..<0xdc00).contains(value) {
                guard self.bytes[self.position...].starts(with: "\\u".utf8) else {
                    throw self.failure("half of a surrogate pair")
                }
                self.position += 2
                let low = try self.parseHexadecimal()
                guard (0xdc00..<0xe000).contains(low) else { throw self.failure("half of a surrogate pair") }
                value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00)
            }
            guard let scalar = Unicode.Scalar(value) else { throw self.failure("half of a surrogate pair") }
            utf8.append(contentsOf: Character(scalar).utf8)
        default:
            self.position -= 1
            throw self.failure("an unknown escape in a string")
        }
    }

    private mutating func parseHexadecimal() throws(JSONError) -> UInt32 {
        let digits = self.bytes[self.position...].prefix(4)
        guard digits.count == 4, digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let value = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw self.failure("four hexadecimal digits expected") }
        self.position += 4
        return value
    }
}
