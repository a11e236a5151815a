/// Request ids of a batch: the same batch id, name and try always give the same one, so that a batch that was
/// interrupted goes on when it is run again, and makes nothing twice.
enum BatchRequestID {
    /// The contract's bound: up to 64 printable ASCII characters.
    static let maximumLength = 64

    /// - Parameter attempt: from 1; a device that failed gets a new id for each new try.
    static func make(batchID: String, name: String, attempt: Int) -> String {
        let suffix = attempt > 1 ? ".\(attempt)" : ""
        let plain = "\(batchID)/\(name)"
        if plain.utf8.count + suffix.utf8.count <= Self.maximumLength,
            plain.utf8.allSatisfy({ (33...126).contains($0) })
        {
            return plain + suffix
        }
        // Names may be longer than that and hold any character: a digest of both stands for them.
        let digest =
            Self.hex(Self.fnv1a(plain, seed: 0xcbf2_9ce4_8422_2325))
            + Self.hex(Self.fnv1a(plain, seed: 0x9e37_79b9_7f4a_7c15))
        return digest + suffix
    }

    /// FNV-1a, 64 bits. The planner checks that no two names of a batch meet.
    private static func fnv1a(_ text: String, seed: UInt64) -> UInt64 {
        text.utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    }

    private static func hex(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
