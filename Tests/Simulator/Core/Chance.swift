/// Numbers that look random and follow from a seed: SplitMix64, the same on every machine.
///
/// Each part of a run draws from a stream of its own, so that a new draw in one part changes no other.
struct Chance: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64, stream: String) {
        // FNV-1a over the stream's name: Hasher would do, but this depends on nothing.
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in stream.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
        self.state = seed &* 0x9e37_79b9_7f4a_7c15 ^ hash
        // Streams with like beginnings part here.
        _ = self.next()
    }

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var word = self.state
        word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }

    mutating func happens(_ probability: Double) -> Bool {
        Double(self.next() >> 11) / Double(1 << 53) < probability
    }

    mutating func index(below count: Int) -> Int { Int(self.next() % UInt64(count)) }

    mutating func integer(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + self.index(below: range.upperBound - range.lowerBound + 1)
    }

    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[self.index(below: elements.count)] }

    /// Whole microseconds between two numbers of milliseconds.
    mutating func milliseconds(_ lower: Double, _ upper: Double) -> Duration {
        let microseconds = UInt64(max(0, (upper - lower) * 1000)) + 1
        return .microseconds(Int64(lower * 1000) + Int64(self.next() % microseconds))
    }
}
