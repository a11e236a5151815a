/// The bytes of an input, taken as decisions. Past their end all of them are zero.
struct ByteSource {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isEmpty: Bool { self.position >= self.bytes.count }

    mutating func byte() -> UInt8 {
        guard self.position < self.bytes.count else { return 0 }
        defer { self.position += 1 }
        return self.bytes[self.position]
    }

    mutating func uint16() -> UInt16 { UInt16(self.byte()) << 8 | UInt16(self.byte()) }

    mutating func uint32() -> UInt32 { UInt32(self.uint16()) << 16 | UInt32(self.uint16()) }

    /// Up to `count` bytes, as many as there are.
    mutating func take(_ count: Int) -> [UInt8] {
        let end = min(self.bytes.count, self.position + count)
        defer { self.position = max(self.position, end) }
        return self.position < end ? Array(self.bytes[self.position..<end]) : []
    }

    mutating func rest() -> [UInt8] { self.take(self.bytes.count) }

    mutating func choose<Value>(_ values: [Value]) -> Value { values[Int(self.byte()) % values.count] }
}
