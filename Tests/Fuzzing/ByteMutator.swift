/// Changes inputs at random, the same way for the same seed: what the short run of the tests does in place of a fuzzer.
public struct ByteMutator {
    private var state: UInt64

    public init(seed: UInt64) { self.state = seed }

    /// SplitMix64.
    private mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var value = self.state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    public mutating func below(_ bound: Int) -> Int { Int(self.next() % UInt64(max(1, bound))) }

    private mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: self.next()) }

    /// One input of `corpus`, changed in a few places; at times a mixture of two.
    public mutating func mutant(of corpus: [[UInt8]], maximumBytes: Int) -> [UInt8] {
        var bytes = corpus.isEmpty ? [] : corpus[self.below(corpus.count)]
        for _ in 0...self.below(6) {
            switch self.below(8) {
            case 0: bytes.insert(self.byte(), at: self.below(bytes.count + 1))
            case 1: if !bytes.isEmpty { bytes.remove(at: self.below(bytes.count)) }
            case 2: if !bytes.isEmpty { bytes[self.below(bytes.count)] ^= 1 << UInt8(self.below(8)) }
            case 3: if !bytes.isEmpty { bytes[self.below(bytes.count)] = self.byte() }
            case 4:
                let extremes: [UInt8] = [0, 1, 0x7F, 0x80, 0xFF]
                if !bytes.isEmpty { bytes[self.below(bytes.count)] = extremes[self.below(5)] }
            case 5:
                let start = self.below(bytes.count + 1)
                let piece = bytes[start..<min(bytes.count, start + 1 + self.below(64))]
                bytes.insert(contentsOf: piece, at: self.below(bytes.count + 1))
            case 6:
                let start = self.below(bytes.count + 1)
                bytes.removeSubrange(start..<min(bytes.count, start + 1 + self.below(32)))
            default:
                guard let other = corpus.isEmpty ? nil : corpus[self.below(corpus.count)] else { continue }
                bytes = Array(bytes.prefix(self.below(bytes.count + 1)) + other.dropFirst(self.below(other.count + 1)))
            }
        }
        return Array(bytes.prefix(maximumBytes))
    }
}
