/// An Android version, compared as numbers: `13` equals `13.0`.
public struct AndroidVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
    public let major: Int
    public let minor: Int

    /// Reads `11`, `12.1` and the like; `nil` for anything else.
    public init?(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count),
            parts.allSatisfy({ (1...2).contains($0.utf8.count) && $0.utf8.allSatisfy { (48...57).contains($0) } }),
            let major = Int(parts[0]), major > 0, let minor = parts.count == 2 ? Int(parts[1]) : 0
        else { return nil }
        self.major = major
        self.minor = minor
    }

    public var description: String { self.minor == 0 ? "\(self.major)" : "\(self.major).\(self.minor)" }
    public static func < (lhs: Self, rhs: Self) -> Bool { (lhs.major, lhs.minor) < (rhs.major, rhs.minor) }
}
