/// The identity of one saga: `saga_<unix milliseconds, 13 digits>_<random>`, e.g. `saga_1730188800000_7k2m9x4q1c`.
///
/// The id begins with its creation time, so that the saga tables can be partitioned by it and look-ups prune.
public struct SagaID: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The text as it stands in the database and on the wire: 29 ASCII characters.
    public let rawValue: String

    static let randomLength = 10
    static let alphabet: [UInt8] = Array("0123456789abcdefghijklmnopqrstuvwxyz".utf8)
    /// 36 to the power of 10.
    private static let randomCount: UInt64 = 3_656_158_440_062_976

    /// Reads an id as it came from a caller; `nil` unless it has the one shape that `init(milliseconds:using:)` makes.
    public init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count == 5 + 13 + 1 + Self.randomLength, bytes.starts(with: "saga_".utf8),
            bytes[5..<18].allSatisfy({ (48...57).contains($0) }), bytes[18] == UInt8(ascii: "_"),
            bytes[19...].allSatisfy({ (48...57).contains($0) || (97...122).contains($0) })
        else { return nil }
        self.rawValue = text
    }

    /// Mints an id.
    ///
    /// - Parameter milliseconds: the database's clock, milliseconds since the Unix epoch.
    public init(milliseconds: Int64, using generator: inout some RandomNumberGenerator) {
        let digits = String(max(0, min(milliseconds, 9_999_999_999_999)))
        var bytes = Array("saga_".utf8)
        bytes.append(contentsOf: repeatElement(UInt8(ascii: "0"), count: 13 - digits.utf8.count))
        bytes.append(contentsOf: digits.utf8)
        bytes.append(UInt8(ascii: "_"))
        // One draw for all ten: each is a call of the kernel.
        var random = generator.next(upperBound: Self.randomCount)
        for _ in 0..<Self.randomLength {
            bytes.append(Self.alphabet[Int(random % UInt64(Self.alphabet.count))])
            random /= UInt64(Self.alphabet.count)
        }
        self.rawValue = String(decoding: bytes, as: UTF8.self)
    }

    /// When the id was minted, milliseconds since the Unix epoch by the database's clock.
    public var milliseconds: Int64 {
        self.rawValue.utf8.dropFirst(5).prefix(13).reduce(0) { $0 * 10 + Int64($1 &- UInt8(ascii: "0")) }
    }

    public var description: String { self.rawValue }
    public static func < (lhs: SagaID, rhs: SagaID) -> Bool { lhs.rawValue < rhs.rawValue }
}
