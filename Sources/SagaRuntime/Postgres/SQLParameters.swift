/// The values of a statement's parameters, in order, in PostgreSQL's binary format, in one buffer.
///
/// A value that can't be encoded (a malformed UUID) is remembered, and the request that carries it throws
/// `invalidParameter` with SQLSTATE 22P02 instead of being sent.
public struct SQLParameters: Sendable {
    /// Where one value lies in `bytes`; `length` is -1 for NULL.
    struct Entry: Sendable {
        var offset: Int32
        var length: Int32
    }

    private(set) var bytes: [UInt8] = []
    private(set) var entries: [Entry] = []
    private(set) var types: [UInt32] = []
    private(set) var problem: String?

    public init() {}

    public var count: Int { self.entries.count }

    /// Room for what is to come, so that appending does not copy.
    public mutating func reserve(bytes: Int, parameters: Int) {
        self.bytes.reserveCapacity(bytes)
        self.entries.reserveCapacity(parameters)
        self.types.reserveCapacity(parameters)
    }

    // MARK: Single values

    /// A `text`.
    public mutating func append(_ value: String) {
        self.value(PostgresType.text) { $0.append(contentsOf: value.utf8) }
    }
    /// A `text` or NULL.
    public mutating func append(_ value: String?) {
        if let value { self.append(value) } else { self.null(PostgresType.text) }
    }
    /// An `int2`.
    public mutating func append(_ value: Int16) { self.value(PostgresType.int2) { $0.append(bigEndian: value) } }
    /// An `int4`.
    public mutating func append(_ value: Int32) { self.value(PostgresType.int4) { $0.append(bigEndian: value) } }
    /// An `int4` or NULL.
    public mutating func append(_ value: Int32?) {
        if let value { self.append(value) } else { self.null(PostgresType.int4) }
    }
    /// An `int8`.
    public mutating func append(_ value: Int64) { self.value(PostgresType.int8) { $0.append(bigEndian: value) } }
    /// An `int8` or NULL.
    public mutating func append(_ value: Int64?) {
        if let value { self.append(value) } else { self.null(PostgresType.int8) }
    }
    /// A `bool`.
    public mutating func append(_ value: Bool) { self.value(PostgresType.bool) { $0.append(value ? 1 : 0) } }
    /// A `float8`.
    public mutating func append(_ value: Double) {
        self.value(PostgresType.float8) { $0.append(bigEndian: value.bitPattern) }
    }
    /// A `bytea`.
    public mutating func append(_ value: [UInt8]) {
        self.value(PostgresType.bytea) { $0.append(contentsOf: value) }
    }
    /// A `bytea` or NULL.
    public mutating func append(_ value: [UInt8]?) {
        if let value { self.append(value) } else { self.null(PostgresType.bytea) }
    }
    /// A `timestamptz`.
    public mutating func append(_ value: Timestamp) {
        self.value(PostgresType.timestamptz) { $0.append(bigEndian: value.sinceDatabaseEpoch) }
    }
    /// A `timestamptz` or NULL.
    public mutating func append(_ value: Timestamp?) {
        if let value { self.append(value) } else { self.null(PostgresType.timestamptz) }
    }
    /// A `uuid` from its text, e.g. `0188b5a2-1c5e-7d4f-9f6e-0a1b2c3d4e5f`.
    public mutating func append(uuid value: String) {
        var isValid = true
        self.value(PostgresType.uuid) { isValid = UUIDText.append(value, to: &$0) }
        if !isValid { self.reject("a uuid parameter is not a UUID") }
    }
    /// A `uuid` or NULL.
    public mutating func append(uuid value: String?) {
        if let value { self.append(uuid: value) } else { self.null(PostgresType.uuid) }
    }

    // MARK: Arrays

    /// A `text[]`.
    public mutating func append(array: some Collection<String>) {
        self.array(PostgresType.textArray, of: PostgresType.text, array) { $0.append(contentsOf: $1.utf8) }
    }
    /// A `text[]` that may hold NULL.
    public mutating func append(array: some Collection<String?>) {
        self.optionalArray(PostgresType.textArray, of: PostgresType.text, array) { $0.append(contentsOf: $1.utf8) }
    }
    /// An `int2[]`.
    public mutating func append(array: some Collection<Int16>) {
        self.array(PostgresType.int2Array, of: PostgresType.int2, array) { $0.append(bigEndian: $1) }
    }
    /// An `int4[]`.
    public mutating func append(array: some Collection<Int32>) {
        self.array(PostgresType.int4Array, of: PostgresType.int4, array) { $0.append(bigEndian: $1) }
    }
    /// An `int4[]` that may hold NULL.
    public mutating func append(array: some Collection<Int32?>) {
        self.optionalArray(PostgresType.int4Array, of: PostgresType.int4, array) { $0.append(bigEndian: $1) }
    }
    /// An `int8[]`.
    public mutating func append(array: some Collection<Int64>) {
        self.array(PostgresType.int8Array, of: PostgresType.int8, array) { $0.append(bigEndian: $1) }
    }
    /// An `int8[]` that may hold NULL.
    public mutating func append(array: some Collection<Int64?>) {
        self.optionalArray(PostgresType.int8Array, of: PostgresType.int8, array) { $0.append(bigEndian: $1) }
    }
    /// A `bool[]`.
    public mutating func append(array: some Collection<Bool>) {
        self.array(PostgresType.boolArray, of: PostgresType.bool, array) { $0.append($1 ? 1 : 0) }
    }
    /// A `bytea[]`.
    public mutating func append(array: some Collection<[UInt8]>) {
        self.array(PostgresType.byteaArray, of: PostgresType.bytea, array) { $0.append(contentsOf: $1) }
    }
    /// A `bytea[]` that may hold NULL.
    public mutating func append(array: some Collection<[UInt8]?>) {
        self.optionalArray(PostgresType.byteaArray, of: PostgresType.bytea, array) { $0.append(contentsOf: $1) }
    }
    /// A `timestamptz[]`.
    public mutating func append(array: some Collection<Timestamp>) {
        self.array(PostgresType.timestamptzArray, of: PostgresType.timestamptz, array) {
            $0.append(bigEndian: $1.sinceDatabaseEpoch)
        }
    }
    /// A `timestamptz[]` that may hold NULL.
    public mutating func append(array: some Collection<Timestamp?>) {
        self.optionalArray(PostgresType.timestamptzArray, of: PostgresType.timestamptz, array) {
            $0.append(bigEndian: $1.sinceDatabaseEpoch)
        }
    }
    /// A `uuid[]` from texts.
    public mutating func appendUUIDs(_ array: some Collection<String>) {
        var areValid = true
        self.array(PostgresType.uuidArray, of: PostgresType.uuid, array) {
            if !UUIDText.append($1, to: &$0) { areValid = false }
        }
        if !areValid { self.reject("an element of a uuid[] parameter is not a UUID") }
    }

    // MARK: Encoding

    private mutating func reject(_ problem: String) {
        if self.problem == nil { self.problem = "$\(self.entries.count): \(problem)" }
    }

    private mutating func null(_ type: UInt32) {
        self.entries.append(Entry(offset: Int32(truncatingIfNeeded: self.bytes.count), length: -1))
        self.types.append(type)
    }

    @inline(__always)
    private mutating func value(_ type: UInt32, _ encode: (inout [UInt8]) -> Void) {
        let start = self.bytes.count
        encode(&self.bytes)
        let end = self.bytes.count
        self.entries.append(
            Entry(offset: Int32(truncatingIfNeeded: start), length: Int32(truncatingIfNeeded: end - start)))
        self.types.append(type)
        // The protocol counts in Int32; PostgreSQL itself refuses more than 1 GiB in a message.
        if end > Self.maximumBytes { self.reject("the parameters are larger than 1 GiB") }
    }
    private static let maximumBytes = 1 << 30

    /// The binary array format (src/backend/utils/adt/arrayfuncs.c, array_send): dimensions, has-null flag, element
    /// type, then per dimension size and lower bound, then each element as length and bytes. An empty array has no
    /// dimension.
    ///
    /// Made into an array first (which costs nothing for an array): callers of other modules come through unspecialised
    /// generic code, and only there.
    @inline(__always)
    private mutating func array<Value>(
        _ type: UInt32, of elementType: UInt32, _ collection: some Collection<Value>,
        _ encode: (inout [UInt8], Value) -> Void
    ) {
        let elements = Array(collection)
        self.value(type) { bytes in
            Self.arrayHeader(count: elements.count, hasNull: false, elementType: elementType, to: &bytes)
            for element in elements { bytes.appendPrefixedByLength { encode(&$0, element) } }
        }
    }

    @inline(__always)
    private mutating func optionalArray<Value>(
        _ type: UInt32, of elementType: UInt32, _ collection: some Collection<Value?>,
        _ encode: (inout [UInt8], Value) -> Void
    ) {
        let elements = Array(collection)
        self.value(type) { bytes in
            let hasNull = elements.contains { $0 == nil }
            Self.arrayHeader(count: elements.count, hasNull: hasNull, elementType: elementType, to: &bytes)
            for element in elements {
                if let element {
                    bytes.appendPrefixedByLength { encode(&$0, element) }
                } else {
                    bytes.append(bigEndian: Int32(-1))
                }
            }
        }
    }

    private static func arrayHeader(count: Int, hasNull: Bool, elementType: UInt32, to bytes: inout [UInt8]) {
        bytes.append(bigEndian: Int32(count == 0 ? 0 : 1))
        bytes.append(bigEndian: Int32(hasNull ? 1 : 0))
        bytes.append(bigEndian: elementType)
        if count > 0 {
            bytes.append(bigEndian: Int32(truncatingIfNeeded: count))
            bytes.append(bigEndian: Int32(1))
        }
    }
}

extension [UInt8] {
    @inline(__always)
    mutating func append(bigEndian value: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: value.bigEndian) { self.append(contentsOf: $0) }
    }

    /// Appends what `encode` appends, with its length before it as a big-endian `Int32`.
    @inline(__always)
    fileprivate mutating func appendPrefixedByLength(_ encode: (inout [UInt8]) -> Void) {
        let start = self.count
        self.append(bigEndian: Int32(0))
        encode(&self)
        let length = Int32(truncatingIfNeeded: self.count - start - 4)
        self.withUnsafeMutableBytes { $0.storeBytes(of: length.bigEndian, toByteOffset: start, as: Int32.self) }
    }
}
