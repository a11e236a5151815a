/// Writes compact JSON text, the form in which arguments go to SQL and outputs to the journal.
///
/// Hand-written because it runs several times per saga: Foundation's encoder costs tens of microseconds each time.
struct JSONWriter {
    private var bytes: [UInt8] = []
    private var needsComma = false

    init(reserving capacity: Int = 256) {
        self.bytes.reserveCapacity(capacity)
    }

    /// What was written so far.
    var text: String { String(decoding: self.bytes, as: UTF8.self) }

    /// One whole object.
    static func object(reserving capacity: Int = 256, _ build: (inout JSONWriter) -> Void) -> String {
        var writer = JSONWriter(reserving: capacity)
        writer.object(build)
        return writer.text
    }

    mutating func object(_ build: (inout JSONWriter) -> Void) {
        self.separate()
        self.bytes.append(UInt8(ascii: "{"))
        self.needsComma = false
        build(&self)
        self.bytes.append(UInt8(ascii: "}"))
        self.needsComma = true
    }

    mutating func array(_ build: (inout JSONWriter) -> Void) {
        self.separate()
        self.bytes.append(UInt8(ascii: "["))
        self.needsComma = false
        build(&self)
        self.bytes.append(UInt8(ascii: "]"))
        self.needsComma = true
    }

    mutating func key(_ key: StaticString) {
        self.separate()
        self.bytes.append(UInt8(ascii: "\""))
        key.withUTF8Buffer { self.bytes.append(contentsOf: $0) }
        self.bytes.append(UInt8(ascii: "\""))
        self.bytes.append(UInt8(ascii: ":"))
        self.needsComma = false
    }

    mutating func member(_ key: StaticString, _ value: String) {
        self.key(key)
        self.string(value)
    }

    mutating func member(_ key: StaticString, _ value: Int64) {
        self.key(key)
        self.integer(value)
    }

    mutating func member(_ key: StaticString, _ value: Int) { self.member(key, Int64(value)) }

    mutating func member(_ key: StaticString, _ value: Bool) {
        self.key(key)
        self.literal(value ? "true" : "false")
    }

    /// A value that is JSON text already. The caller vouches for it.
    mutating func member(_ key: StaticString, json: String) {
        self.key(key)
        self.literal(json)
    }

    mutating func member(_ key: StaticString, _ values: [String]) {
        self.key(key)
        self.array { writer in
            for value in values { writer.string(value) }
        }
    }

    /// Keys in rising order, so that equal dictionaries give equal text.
    mutating func member(_ key: StaticString, _ values: [String: String]) {
        self.key(key)
        self.object { writer in
            for (key, value) in values.sorted(by: { $0.key < $1.key }) {
                writer.string(key)
                writer.bytes.append(UInt8(ascii: ":"))
                writer.needsComma = false
                writer.string(value)
            }
        }
    }

    mutating func integer(_ value: Int64) {
        self.literal(String(value))
    }

    mutating func literal(_ text: String) {
        self.separate()
        self.bytes.append(contentsOf: text.utf8)
        self.needsComma = true
    }

    /// NUL is left out: `jsonb` can't hold it.
    mutating func string(_ value: String) {
        self.separate()
        self.bytes.append(UInt8(ascii: "\""))
        let isPlain = value.utf8.allSatisfy { $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
        if isPlain { self.bytes.append(contentsOf: value.utf8) } else { self.escape(value) }
        self.bytes.append(UInt8(ascii: "\""))
        self.needsComma = true
    }

    private mutating func escape(_ value: String) {
        for byte in value.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                self.bytes.append(UInt8(ascii: "\\"))
                self.bytes.append(byte)
            case 0:
                break
            case 0x01..<0x20:
                self.bytes.append(contentsOf: "\\u00".utf8)
                self.bytes.append(Self.hexadecimal[Int(byte >> 4)])
                self.bytes.append(Self.hexadecimal[Int(byte & 15)])
            default:
                self.bytes.append(byte)
            }
        }
    }

    private static let hexadecimal = Array("0123456789abcdef".utf8)

    private mutating func separate() {
        if self.needsComma { self.bytes.append(UInt8(ascii: ",")) }
        self.needsComma = false
    }
}
