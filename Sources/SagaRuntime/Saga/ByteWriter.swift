/// Appends packed values: bytes, LEB128 numbers (signed ones zigzag), length-prefixed texts and blobs. What is stored in
/// the journal is written with it.
package struct ByteWriter {
    package private(set) var bytes: [UInt8] = []

    package init() { self.bytes.reserveCapacity(256) }

    package mutating func byte(_ value: UInt8) { self.bytes.append(value) }

    package mutating func unsigned(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            self.bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        self.bytes.append(UInt8(rest))
    }

    package mutating func signed(_ value: Int64) {
        self.unsigned(UInt64(bitPattern: (value << 1) ^ (value >> 63)))
    }

    package mutating func text(_ value: String) {
        self.unsigned(UInt64(value.utf8.count))
        self.bytes.append(contentsOf: value.utf8)
    }

    package mutating func blob(_ value: [UInt8]) {
        self.unsigned(UInt64(value.count))
        self.bytes.append(contentsOf: value)
    }

    /// Bytes as they are; the reader knows how many.
    package mutating func raw(_ value: some Sequence<UInt8>) { self.bytes.append(contentsOf: value) }
}
