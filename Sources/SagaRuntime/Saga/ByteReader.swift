/// Reads what `ByteWriter` wrote; throws, never traps, whatever the bytes are.
package struct ByteReader {
    private let bytes: [UInt8]
    private var offset = 0

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    package var isAtEnd: Bool { self.offset == self.bytes.count }

    package mutating func byte() throws(StoredDataError) -> UInt8 {
        guard self.offset < self.bytes.count else { throw Self.cutShort }
        defer { self.offset += 1 }
        return self.bytes[self.offset]
    }

    package mutating func unsigned() throws(StoredDataError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let byte = try self.byte()
            guard shift < 63 || byte <= 1 else { throw StoredDataError(message: "number too large") }
            value |= UInt64(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return value }
            shift += 7
            guard shift <= 63 else { throw StoredDataError(message: "number too long") }
        }
    }

    package mutating func signed() throws(StoredDataError) -> Int64 {
        let value = try self.unsigned()
        return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1)
    }

    package mutating func count(limit: UInt64) throws(StoredDataError) -> Int {
        let value = try self.unsigned()
        guard value <= limit else { throw StoredDataError(message: "number \(value) is over \(limit)") }
        return Int(value)
    }

    package mutating func raw(_ count: Int) throws(StoredDataError) -> ArraySlice<UInt8> {
        guard count <= self.bytes.count - self.offset else { throw Self.cutShort }
        defer { self.offset += count }
        return self.bytes[self.offset..<self.offset + count]
    }

    package mutating func blob() throws(StoredDataError) -> [UInt8] { Array(try self.lengthPrefixed()) }

    package mutating func text() throws(StoredDataError) -> String {
        guard let text = try self.lengthPrefixed().withUnsafeBytes({ String(utf8: $0) }) else {
            throw StoredDataError(message: "text is not UTF-8")
        }
        return text
    }

    private mutating func lengthPrefixed() throws(StoredDataError) -> ArraySlice<UInt8> {
        try self.raw(try self.count(limit: UInt64(self.bytes.count)))
    }

    private static var cutShort: StoredDataError { StoredDataError(message: "the bytes are cut short") }
}
