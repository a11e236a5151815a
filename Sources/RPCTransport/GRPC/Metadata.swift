/// The custom metadata of a call: an ordered multimap of ASCII names to text or, for names ending in `-bin`, bytes.
///
/// Names are compared without regard to case and kept in lower case. Names that belong to the protocol (those with a
/// colon, `grpc-…`, `content-type`, `te`) are never shown to the application and are left out when it sets them, but
/// for `grpc-retry-pushback-ms` and `grpc-previous-rpc-attempts`, which applications need.
public struct Metadata: Sendable, Hashable {
    /// One value: text, or bytes if the name ends in `-bin`.
    public enum Value: Sendable, Hashable {
        case text(String)
        case binary([UInt8])
    }

    var list: HeaderList

    public init() { self.list = HeaderList() }

    init(_ list: HeaderList) { self.list = list }

    public var isEmpty: Bool { self.list.fields.allSatisfy { $0.isReserved } }

    /// Adds a text value. Characters that a header cannot carry (outside of %x20-7E) become `?`.
    ///
    /// Nothing is added if the name is empty, reserved, holds characters that a name cannot have, or ends in `-bin`.
    public mutating func append(_ name: String, _ value: String) {
        guard let name = Self.validName(name), !name.hasSuffix("-bin") else { return }
        self.list.append(name.utf8, value.utf8.map { (0x20...0x7E).contains($0) ? $0 : UInt8(ascii: "?") })
    }

    /// Adds bytes under a name that ends in `-bin`; nothing is added under another name.
    public mutating func append(_ name: String, binary value: some Collection<UInt8>) {
        guard let name = Self.validName(name), name.hasSuffix("-bin") else { return }
        self.list.append(name.utf8, Base64.encode(value))
    }

    public mutating func append(contentsOf other: Metadata) {
        self.list.append(contentsOf: other.list)
    }

    public mutating func removeAll(_ name: String) {
        let name = Array(name.lowercased().utf8)
        self.list.removeAll { $0.elementsEqual(name) }
    }

    /// The first text value under the name.
    public func first(_ name: String) -> String? {
        self.firstRaw(name).map { String(decoding: $0, as: UTF8.self) }
    }

    /// All text values under the name, in order.
    public func all(_ name: String) -> [String] {
        self.raw(name).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The first bytes under a name that ends in `-bin`.
    public func firstBinary(_ name: String) -> [UInt8]? { self.allBinary(name).first }

    /// All bytes under a name that ends in `-bin`, in order. Values that a proxy joined with commas are told apart;
    /// what is not base64 is left out.
    public func allBinary(_ name: String) -> [[UInt8]] {
        self.raw(name).flatMap { Self.decodeBinary($0) }
    }

    /// All entries in order.
    public var entries: [(name: String, value: Value)] {
        var entries: [(name: String, value: Value)] = []
        self.list.forEach { name, value, isReserved in
            guard !isReserved else { return }
            let text = lossyString(name)
            if hasSuffix(name, "-bin") {
                for bytes in Self.decodeBinary(Array(value)) { entries.append((text, .binary(bytes))) }
            } else {
                entries.append((text, .text(lossyString(value))))
            }
        }
        return entries
    }

    /// Calls `body` with the bytes of each value under the name, which is in lower case, without copying them.
    public func withValues(of name: StaticString, _ body: (UnsafeBufferPointer<UInt8>) -> Void) {
        let wanted = UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        self.list.forEach { name, value, isReserved in
            if !isReserved, name.count == wanted.count, name.elementsEqual(wanted) { body(value) }
        }
    }

    private func firstRaw(_ name: String) -> [UInt8]? { self.raw(name).first }

    private func raw(_ name: String) -> [[UInt8]] {
        let wanted = Array(name.lowercased().utf8)
        var values: [[UInt8]] = []
        self.list.forEach { name, value, isReserved in
            if !isReserved, name.elementsEqual(wanted) { values.append(Array(value)) }
        }
        return values
    }

    private static func decodeBinary(_ raw: [UInt8]) -> [[UInt8]] {
        raw.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: raw.contains(UInt8(ascii: ",")))
            .compactMap { part in
                var part = part
                while part.first == UInt8(ascii: " ") { part.removeFirst() }
                while part.last == UInt8(ascii: " ") { part.removeLast() }
                return Base64.decode(part)
            }
    }

    private static func validName(_ name: String) -> String? {
        let name = name.lowercased()
        let isValid = name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
                UInt8(ascii: "_"), UInt8(ascii: "."):
                true
            default: false
            }
        }
        guard isValid, !name.isEmpty else { return nil }
        return Array(name.utf8).withUnsafeBufferPointer { ReservedHeaders.contains($0) } ? nil : name
    }
}

extension Metadata: CustomStringConvertible {
    /// The names only: values may be secrets.
    public var description: String { "[\(self.entries.map(\.name).joined(separator: ", "))]" }
}
