/// Stored bytes that don't decode. The saga fails or parks; nothing traps.
public struct DeviceDecodingError: Error, Sendable, Equatable {
    public var message: String
}

/// Reads what `BinaryWriter` wrote; every read is checked.
struct BinaryReader {
    private let bytes: [UInt8]
    private var offset = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { self.offset == self.bytes.count }

    mutating func byte() throws(DeviceDecodingError) -> UInt8 {
        guard self.offset < self.bytes.count else { throw DeviceDecodingError(message: "the bytes end too early") }
        defer { self.offset += 1 }
        return self.bytes[self.offset]
    }

    /// LEB128, at most 32 bits.
    mutating func unsigned() throws(DeviceDecodingError) -> UInt32 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), through: 28, by: 7) {
            let byte = try self.byte()
            value |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 {
                guard let value = UInt32(exactly: value) else { break }
                return value
            }
        }
        throw DeviceDecodingError(message: "a number is too long")
    }

    mutating func slice(_ count: Int) throws(DeviceDecodingError) -> ArraySlice<UInt8> {
        guard count <= self.bytes.count - self.offset else {
            throw DeviceDecodingError(message: "the bytes end too early")
        }
        defer { self.offset += count }
        return self.bytes[self.offset..<self.offset + count]
    }

    mutating func string() throws(DeviceDecodingError) -> String {
        let slice = try self.slice(Int(try self.unsigned()))
        guard let text = String(validating: slice, as: UTF8.self) else {
            throw DeviceDecodingError(message: "a text is not UTF-8")
        }
        return text
    }
}

/// Writes bytes, LEB128 numbers and length-prefixed texts.
struct BinaryWriter {
    private(set) var bytes: [UInt8] = []

    mutating func byte(_ value: UInt8) { self.bytes.append(value) }

    mutating func unsigned(_ value: UInt32) {
        var value = value
        while value > 0x7F {
            self.bytes.append(UInt8(value & 0x7F) | 0x80)
            value >>= 7
        }
        self.bytes.append(UInt8(value))
    }

    mutating func raw(_ bytes: some Sequence<UInt8>) { self.bytes.append(contentsOf: bytes) }

    mutating func string(_ value: String) {
        self.unsigned(UInt32(clamping: value.utf8.count))
        self.bytes.append(contentsOf: value.utf8)
    }
}
