/// The fields of one header block, names and values in one run of bytes.
///
/// Bytes and not strings: most fields of a call are compared with constants once and never looked at again.
struct HeaderList: Sendable, Hashable {
    /// Where one field lies in `bytes`: the name from `start`, the value right behind it.
    struct Field: Sendable, Hashable {
        var start: UInt32
        var nameLength: UInt32
        var valueLength: UInt32
        /// Reserved for the protocol: kept, but no metadata of the application.
        var isReserved = false
    }

    private(set) var bytes: [UInt8] = []
    private(set) var fields: [Field] = []

    init() {}

    var isEmpty: Bool { self.fields.isEmpty }

    mutating func reserveCapacity(bytes: Int, fields: Int) {
        self.bytes.reserveCapacity(bytes)
        self.fields.reserveCapacity(fields)
    }

    mutating func append(name: UnsafeBufferPointer<UInt8>, value: UnsafeBufferPointer<UInt8>) {
        let field = Field(
            start: UInt32(truncatingIfNeeded: self.bytes.count), nameLength: UInt32(truncatingIfNeeded: name.count),
            valueLength: UInt32(truncatingIfNeeded: value.count))
        self.bytes.append(contentsOf: name)
        self.bytes.append(contentsOf: value)
        self.fields.append(field)
    }

    mutating func append(_ name: StaticString, _ value: StaticString) {
        self.append(
            name: UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount),
            value: UnsafeBufferPointer(start: value.utf8Start, count: value.utf8CodeUnitCount))
    }

    mutating func append(_ name: StaticString, _ value: some Collection<UInt8>) {
        self.append(UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), value)
    }

    mutating func append(_ name: some Collection<UInt8>, _ value: some Collection<UInt8>) {
        let start = self.bytes.count
        self.bytes.append(contentsOf: name)
        let nameLength = self.bytes.count - start
        self.bytes.append(contentsOf: value)
        self.fields.append(
            Field(
                start: UInt32(truncatingIfNeeded: start), nameLength: UInt32(truncatingIfNeeded: nameLength),
                valueLength: UInt32(truncatingIfNeeded: self.bytes.count - start - nameLength)))
    }

    /// Appends the fields of `other` that are not reserved.
    mutating func append(contentsOf other: HeaderList) {
        other.forEach { name, value, isReserved in
            if !isReserved { self.append(name: name, value: value) }
        }
    }

    /// The size of a header block with these fields, in bytes as RFC 9113 counts them (section 6.5.2).
    var listBytes: Int { self.bytes.count + 32 * self.fields.count }

    /// The fields, without those that would make the list larger than this.
    func fitting(in limit: Int) -> HeaderList {
        guard self.listBytes > limit else { return self }
        var kept = HeaderList()
        self.forEach { name, value, isReserved in
            if !isReserved, kept.listBytes + name.count + value.count + 32 <= limit {
                kept.append(name: name, value: value)
            }
        }
        return kept
    }

    mutating func removeAll(where shouldRemove: (UnsafeBufferPointer<UInt8>) -> Bool) {
        var kept = HeaderList()
        self.forEach { name, value, _ in
            if !shouldRemove(name) { kept.append(name: name, value: value) }
        }
        self = kept
    }

    /// Calls `body` with each field in order: name, value, whether it is reserved.
    @inline(__always)
    func forEach<E: Error>(
        _ body: (UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>, Bool) throws(E) -> Void
    ) throws(E) {
        // A buffer pointer and not a span per field: this runs for every call.
        try self.bytes.withUnsafeBufferPointer { (base: UnsafeBufferPointer<UInt8>) throws(E) in
            for field in self.fields {
                let (name, value) = Self.slices(of: field, in: base)
                try body(name, value, field.isReserved)
            }
        }
    }

    /// Calls `mark` with each field; where it answers true, the field becomes reserved.
    @inline(__always)
    mutating func markReserved(_ mark: (UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>) -> Bool) {
        self.bytes.withUnsafeBufferPointer { base in
            for index in self.fields.indices {
                let (name, value) = Self.slices(of: self.fields[index], in: base)
                if mark(name, value) { self.fields[index].isReserved = true }
            }
        }
    }

    @inline(__always)
    static func slices(
        of field: Field, in base: UnsafeBufferPointer<UInt8>
    ) -> (UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>) {
        let start = Int(field.start)
        let middle = start + Int(field.nameLength)
        return (
            UnsafeBufferPointer(rebasing: base[start..<middle]),
            UnsafeBufferPointer(rebasing: base[middle..<(middle + Int(field.valueLength))])
        )
    }
}
