/// Reads the protobuf wire format, field by field, without copying. What cannot be read ends the scan: bytes from
/// outside never trap.
package struct ProtoReader {
    package enum Value {
        case varint(UInt64)
        case fixed64
        case fixed32
        case bytes(ArraySlice<UInt8>)
    }

    private var rest: ArraySlice<UInt8>
    /// True once something could not be read.
    package private(set) var isMalformed = false

    package init(_ bytes: ArraySlice<UInt8>) { self.rest = bytes }

    package init(_ bytes: [UInt8]) { self.rest = bytes[...] }

    /// The next field, or nil at the end or where the bytes make no sense.
    package mutating func next() -> (field: UInt32, value: Value)? {
        guard !self.rest.isEmpty, let key = self.varint(), key >> 3 > 0, key >> 3 < 1 << 29 else {
            return self.stop()
        }
        let field = UInt32(key >> 3)
        switch key & 7 {
        case 0:
            guard let value = self.varint() else { return self.stop() }
            return (field, .varint(value))
        case 1: return self.take(8).map { _ in (field, .fixed64) } ?? self.stop()
        case 2:
            guard let length = self.varint(), length <= UInt64(self.rest.count), let bytes = self.take(Int(length))
            else { return self.stop() }
            return (field, .bytes(bytes))
        case 5: return self.take(4).map { _ in (field, .fixed32) } ?? self.stop()
        default: return self.stop()  // groups, which none of our messages has
        }
    }

    private mutating func stop() -> (field: UInt32, value: Value)? {
        if !self.rest.isEmpty { self.isMalformed = true }
        self.rest = []
        return nil
    }

    private mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
        guard count <= self.rest.count else { return nil }
        defer { self.rest = self.rest.dropFirst(count) }
        return self.rest.prefix(count)
    }

    private mutating func varint() -> UInt64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while shift < 64, let byte = self.rest.popFirst() {
            value |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 { return value }
            shift += 7
        }
        self.isMalformed = true
        return nil
    }
}

/// Writes the protobuf wire format.
package struct ProtoWriter {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package mutating func varint(_ field: UInt32, _ value: UInt64) {
        self.append(UInt64(field) << 3)
        self.append(value)
    }

    package mutating func bytes(_ field: UInt32, _ value: some Collection<UInt8>) {
        self.append(UInt64(field) << 3 | 2)
        self.append(UInt64(value.count))
        self.bytes.append(contentsOf: value)
    }

    /// Nothing for the empty string: the default of proto3 is not written.
    package mutating func string(_ field: UInt32, _ value: String) {
        if !value.isEmpty { self.bytes(field, value.utf8) }
    }

    package mutating func message(_ field: UInt32, _ build: (inout ProtoWriter) -> Void) {
        var writer = ProtoWriter()
        build(&writer)
        self.bytes(field, writer.bytes)
    }

    private mutating func append(_ value: UInt64) {
        var value = value
        while value >= 0x80 {
            self.bytes.append(UInt8(truncatingIfNeeded: value) | 0x80)
            value >>= 7
        }
        self.bytes.append(UInt8(value))
    }
}
