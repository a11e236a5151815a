/// A distribution of latencies in bounded memory, exact to 1.6 %: 64 linear buckets per power of two, in microseconds.
struct LatencyHistogram: Sendable {
    private static let subBuckets = 64
    private var counts = [UInt64](repeating: 0, count: 64 * 40)
    private(set) var count: UInt64 = 0
    private(set) var maximum: Int64 = 0
    private var sum: Int64 = 0

    init() {}

    /// - Parameter microseconds: negative counts as 0.
    mutating func record(microseconds: Int64) {
        let value = max(0, microseconds)
        self.counts[min(Self.index(value), self.counts.count - 1)] += 1
        self.count += 1
        self.sum &+= value
        self.maximum = max(self.maximum, value)
    }

    mutating func merge(_ other: LatencyHistogram) {
        for index in self.counts.indices { self.counts[index] += other.counts[index] }
        self.count += other.count
        self.sum &+= other.sum
        self.maximum = max(self.maximum, other.maximum)
    }

    var mean: Double { self.count == 0 ? 0 : Double(self.sum) / Double(self.count) }

    /// The smallest latency that at least `percent` of all do not exceed, as its bucket's upper end.
    func percentile(_ percent: Double) -> Int64 {
        if self.count == 0 { return 0 }
        let rank = max(1, UInt64((percent / 100 * Double(self.count)).rounded(.up)))
        var seen: UInt64 = 0
        for (index, count) in self.counts.enumerated() {
            seen += count
            if seen >= rank { return min(Self.upperEnd(index), self.maximum) }
        }
        return self.maximum
    }

    /// Values below 64 have a bucket each; above, the top seven bits choose.
    private static func index(_ value: Int64) -> Int {
        if value < Int64(Self.subBuckets) { return Int(value) }
        let shift = 63 - value.leadingZeroBitCount - 6
        return (shift + 1) * Self.subBuckets + Int(value >> Int64(shift)) - Self.subBuckets
    }

    private static func upperEnd(_ index: Int) -> Int64 {
        if index < Self.subBuckets { return Int64(index) }
        let shift = Int64(index / Self.subBuckets - 1)
        let top = Int64(index % Self.subBuckets + Self.subBuckets)
        return ((top + 1) << shift) - 1
    }
}
