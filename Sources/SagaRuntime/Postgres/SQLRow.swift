/// One row of a result. Every accessor checks type and shape and throws `PostgresError` with code `decoding`: what
/// stands in the database may be older, newer or damaged, and must not stop the process.
public struct SQLRow: Sendable {
    let buffer: ResultBuffer
    let row: Int

    /// Whether the column is NULL; true for a column that the row does not have.
    public func isNull(_ column: Int) -> Bool {
        guard column >= 0, column < self.buffer.columnCount else { return true }
        return self.buffer.bytes.withUnsafeBytes { self.cell(column, in: $0).length < 0 }
    }

    /// `text`, `varchar`, `name`, `json`, `jsonb` or an enum.
    public func text(_ column: Int) throws(PostgresError) -> String {
        try self.required(column, self.optionalText(column))
    }
    public func optionalText(_ column: Int) throws(PostgresError) -> String? {
        try self.decode(column, "text", Self.decodeText)
    }

    /// `int2`.
    public func int16(_ column: Int) throws(PostgresError) -> Int16 {
        try self.required(column, self.optionalInt16(column))
    }
    public func optionalInt16(_ column: Int) throws(PostgresError) -> Int16? {
        try self.decode(column, "int2") { Self.decodeInteger($0, $1).flatMap { Int16(exactly: $0) } }
    }

    /// `int2` or `int4`.
    public func int32(_ column: Int) throws(PostgresError) -> Int32 {
        try self.required(column, self.optionalInt32(column))
    }
    public func optionalInt32(_ column: Int) throws(PostgresError) -> Int32? {
        try self.decode(column, "int4") { Self.decodeInteger($0, $1).flatMap { Int32(exactly: $0) } }
    }

    /// `int2`, `int4`, `int8`, `oid` or `xid8`.
    public func int64(_ column: Int) throws(PostgresError) -> Int64 {
        try self.required(column, self.optionalInt64(column))
    }
    public func optionalInt64(_ column: Int) throws(PostgresError) -> Int64? {
        try self.decode(column, "int8", Self.decodeInteger)
    }

    /// `bool`.
    public func bool(_ column: Int) throws(PostgresError) -> Bool {
        try self.required(column, self.optionalBool(column))
    }
    public func optionalBool(_ column: Int) throws(PostgresError) -> Bool? {
        try self.decode(column, "bool") { type, bytes in
            type == PostgresType.bool && bytes.count == 1 ? bytes[0] != 0 : nil
        }
    }

    /// `float4` or `float8`.
    public func double(_ column: Int) throws(PostgresError) -> Double {
        try self.required(column, self.optionalDouble(column))
    }
    public func optionalDouble(_ column: Int) throws(PostgresError) -> Double? {
        try self.decode(column, "float8") { type, bytes in
            if type == PostgresType.float8 && bytes.count == 8 {
                return Double(bitPattern: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)))
            }
            if type == PostgresType.float4 && bytes.count == 4 {
                return Double(Float(bitPattern: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))))
            }
            return nil
        }
    }

    /// `bytea`.
    public func bytes(_ column: Int) throws(PostgresError) -> [UInt8] {
        try self.required(column, self.optionalBytes(column))
    }
    public func optionalBytes(_ column: Int) throws(PostgresError) -> [UInt8]? {
        try self.decode(column, "bytea") { type, bytes in type == PostgresType.bytea ? [UInt8](bytes) : nil }
    }

    /// `timestamptz`; infinity is `Timestamp.infinity`.
    public func timestamp(_ column: Int) throws(PostgresError) -> Timestamp {
        try self.required(column, self.optionalTimestamp(column))
    }
    public func optionalTimestamp(_ column: Int) throws(PostgresError) -> Timestamp? {
        try self.decode(column, "timestamptz", Self.decodeTimestamp)
    }

    /// `uuid`, as canonical lower-case text.
    public func uuid(_ column: Int) throws(PostgresError) -> String {
        try self.required(column, self.optionalUUID(column))
    }
    public func optionalUUID(_ column: Int) throws(PostgresError) -> String? {
        try self.decode(column, "uuid", Self.decodeUUID)
    }

    // MARK: Arrays

    /// `text[]` without NULLs.
    public func textArray(_ column: Int) throws(PostgresError) -> [String] {
        try self.array(column, "text[]", PostgresType.textArray, Self.decodeText)
    }
    public func optionalTextArray(_ column: Int) throws(PostgresError) -> [String]? {
        if self.isNull(column) { return nil }
        return try self.textArray(column)
    }
    /// `text[]` that may hold NULL.
    public func textArrayWithNulls(_ column: Int) throws(PostgresError) -> [String?] {
        try self.arrayWithNulls(column, "text[]", PostgresType.textArray, Self.decodeText)
    }
    /// `int4[]` without NULLs.
    public func int32Array(_ column: Int) throws(PostgresError) -> [Int32] {
        try self.array(column, "int4[]", PostgresType.int4Array) {
            Self.decodeInteger($0, $1).flatMap { Int32(exactly: $0) }
        }
    }
    /// `int4[]` that may hold NULL.
    public func int32ArrayWithNulls(_ column: Int) throws(PostgresError) -> [Int32?] {
        try self.arrayWithNulls(column, "int4[]", PostgresType.int4Array) {
            Self.decodeInteger($0, $1).flatMap { Int32(exactly: $0) }
        }
    }
    /// `int8[]` without NULLs.
    public func int64Array(_ column: Int) throws(PostgresError) -> [Int64] {
        try self.array(column, "int8[]", PostgresType.int8Array, Self.decodeInteger)
    }
    /// `int8[]` that may hold NULL.
    public func int64ArrayWithNulls(_ column: Int) throws(PostgresError) -> [Int64?] {
        try self.arrayWithNulls(column, "int8[]", PostgresType.int8Array, Self.decodeInteger)
    }
    /// `bool[]` without NULLs.
    public func boolArray(_ column: Int) throws(PostgresError) -> [Bool] {
        try self.array(column, "bool[]", PostgresType.boolArray) { _, bytes in bytes.count == 1 ? bytes[0] != 0 : nil }
    }
    /// `bytea[]` without NULLs.
    public func bytesArray(_ column: Int) throws(PostgresError) -> [[UInt8]] {
        try self.array(column, "bytea[]", PostgresType.byteaArray) { _, bytes in [UInt8](bytes) }
    }
    /// `bytea[]` that may hold NULL.
    public func bytesArrayWithNulls(_ column: Int) throws(PostgresError) -> [[UInt8]?] {
        try self.arrayWithNulls(column, "bytea[]", PostgresType.byteaArray) { _, bytes in [UInt8](bytes) }
    }
    /// `timestamptz[]` without NULLs.
    public func timestampArray(_ column: Int) throws(PostgresError) -> [Timestamp] {
        try self.array(column, "timestamptz[]", PostgresType.timestamptzArray, Self.decodeTimestamp)
    }
    /// `timestamptz[]` that may hold NULL.
    public func timestampArrayWithNulls(_ column: Int) throws(PostgresError) -> [Timestamp?] {
        try self.arrayWithNulls(column, "timestamptz[]", PostgresType.timestamptzArray, Self.decodeTimestamp)
    }
    /// `uuid[]` without NULLs, as texts.
    public func uuidArray(_ column: Int) throws(PostgresError) -> [String] {
        try self.array(column, "uuid[]", PostgresType.uuidArray, Self.decodeUUID)
    }

    // MARK: Values

    private static func decodeText(_ type: UInt32, _ bytes: UnsafeRawBufferPointer) -> String? {
        switch type {
        case PostgresType.text, PostgresType.varchar, PostgresType.bpchar, PostgresType.name, PostgresType.json,
            PostgresType.unknown:
            return String(utf8: bytes)
        case PostgresType.jsonb:
            // One byte of version, then the text (jsonb_send).
            guard bytes.first == 1 else { return nil }
            return String(utf8: UnsafeRawBufferPointer(rebasing: bytes[1...]))
        case PostgresType.firstUserDefined...:
            return String(utf8: bytes)
        default:
            return nil
        }
    }

    private static func decodeInteger(_ type: UInt32, _ bytes: UnsafeRawBufferPointer) -> Int64? {
        switch (type, bytes.count) {
        case (PostgresType.int8, 8): Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        case (PostgresType.int4, 4): Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self)))
        case (PostgresType.int2, 2): Int64(Int16(bigEndian: bytes.loadUnaligned(as: Int16.self)))
        case (PostgresType.oid, 4): Int64(UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)))
        case (PostgresType.xid8, 8): Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        default: nil
        }
    }

    private static func decodeTimestamp(_ type: UInt32, _ bytes: UnsafeRawBufferPointer) -> Timestamp? {
        guard type == PostgresType.timestamptz, bytes.count == 8 else { return nil }
        return Timestamp(sinceDatabaseEpoch: Int64(bigEndian: bytes.loadUnaligned(as: Int64.self)))
    }

    private static func decodeUUID(_ type: UInt32, _ bytes: UnsafeRawBufferPointer) -> String? {
        type == PostgresType.uuid && bytes.count == 16 ? UUIDText.text(bytes) : nil
    }

    // MARK: Cells

    @inline(__always)
    private func cell(_ column: Int, in bytes: UnsafeRawBufferPointer) -> (offset: Int, length: Int) {
        let position = (self.row &* self.buffer.columnCount &+ column) &* ResultBuffer.cellSize
        return (
            Int(bytes.loadUnaligned(fromByteOffset: position, as: Int32.self)),
            Int(bytes.loadUnaligned(fromByteOffset: position &+ 4, as: Int32.self))
        )
    }

    private func required<Value>(_ column: Int, _ value: Value?) throws(PostgresError) -> Value {
        guard let value else { throw .decoding("column \(column) is NULL") }
        return value
    }

    /// - Returns: `nil` for NULL.
    @inline(__always)
    private func decode<Value>(
        _ column: Int, _ expected: String, _ decoder: (UInt32, UnsafeRawBufferPointer) -> Value?
    ) throws(PostgresError) -> Value? {
        guard column >= 0, column < self.buffer.columnCount else {
            throw .decoding("no column \(column): the row has \(self.buffer.columnCount)")
        }
        let type = self.buffer.columnTypes[column]
        let (value, isNull): (Value?, Bool) = self.buffer.bytes.withUnsafeBytes { bytes in
            let (offset, length) = self.cell(column, in: bytes)
            if length < 0 { return (nil, true) }
            return (decoder(type, UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length])), false)
        }
        if value == nil && !isNull { throw .decoding("column \(column) of type \(type) does not read as \(expected)") }
        return value
    }

    private func array<Value>(
        _ column: Int, _ expected: String, _ arrayType: UInt32,
        _ decoder: (UInt32, UnsafeRawBufferPointer) -> Value?
    ) throws(PostgresError) -> [Value] {
        let elements = try self.arrayWithNulls(column, expected, arrayType, decoder)
        var result: [Value] = []
        result.reserveCapacity(elements.count)
        for element in elements {
            guard let element else { throw .decoding("column \(column): \(expected) holds a NULL") }
            result.append(element)
        }
        return result
    }

    private func arrayWithNulls<Value>(
        _ column: Int, _ expected: String, _ arrayType: UInt32,
        _ decoder: (UInt32, UnsafeRawBufferPointer) -> Value?
    ) throws(PostgresError) -> [Value?] {
        let value = try self.decode(column, expected) { type, bytes in
            type == arrayType ? Self.elements(bytes, decoder) : nil
        }
        return try self.required(column, value)
    }

    /// Reads array_send's format; `nil` if it is malformed, has more than one dimension, or an element does not decode.
    private static func elements<Value>(
        _ bytes: UnsafeRawBufferPointer, _ decoder: (UInt32, UnsafeRawBufferPointer) -> Value?
    ) -> [Value?]? {
        guard bytes.count >= 12 else { return nil }
        func int32(_ offset: Int) -> Int {
            Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
        }
        let dimensions = int32(0)
        let elementType = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
        if dimensions == 0 { return [] }
        guard dimensions == 1, bytes.count >= 20 else { return nil }
        let count = int32(12)
        // Every element takes at least its length: a count that can't be true must not reserve memory.
        guard count >= 0, count <= (bytes.count - 20) / 4 else { return nil }
        var result: [Value?] = []
        result.reserveCapacity(count)
        var offset = 20
        for _ in 0..<count {
            guard offset + 4 <= bytes.count else { return nil }
            let length = int32(offset)
            offset += 4
            if length < 0 {
                result.append(nil)
                continue
            }
            guard length <= bytes.count - offset,
                let value = decoder(elementType, UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length]))
            else { return nil }
            result.append(value)
            offset += length
        }
        return result
    }
}
