import CoreMetrics
import Synchronization

/// One time series. Updates are single atomic operations without a lock; the registry only reads.
///
/// A subclass exists per kind because swift-metrics asks for a class per kind of handler.
protocol Series: AnyObject, Sendable {
    /// Appends the series' sample lines.
    func expose(_ family: MetricFamilyDescription, _ labels: LabelSet, into text: inout String)
}

/// An ever rising number.
final class CounterSeries: Series, CounterHandler {
    private let value = Atomic<Int64>(0)

    func increment(by amount: Int64) {
        if amount > 0 { self.value.wrappingAdd(amount, ordering: .relaxed) }
    }
    func reset() { self.value.store(0, ordering: .relaxed) }
    /// For counts that are kept elsewhere and only copied when somebody scrapes.
    func set(_ total: Int64) { self.value.store(total, ordering: .relaxed) }

    func expose(_ family: MetricFamilyDescription, _ labels: LabelSet, into text: inout String) {
        text += "\(family.name)\(labels.rendered) \(self.value.load(ordering: .relaxed))\n"
    }
}

/// An ever rising number with fractions.
final class FloatingPointCounterSeries: Series, FloatingPointCounterHandler {
    private let value = AtomicDouble()

    func increment(by amount: Double) {
        if amount > 0, amount.isFinite { self.value.add(amount) }
    }
    func reset() { self.value.store(0) }
    /// For counters that something else counts, such as CPU time.
    func set(_ total: Double) { self.value.store(total) }

    func expose(_ family: MetricFamilyDescription, _ labels: LabelSet, into text: inout String) {
        text += "\(family.name)\(labels.rendered) \(Exposition.number(self.value.load()))\n"
    }
}

/// A number that goes up and down. Serves swift-metrics' meters and its recorders that don't aggregate.
final class GaugeSeries: Series, MeterHandler, RecorderHandler {
    private let value = AtomicDouble()

    func set(_ value: Int64) { self.value.store(Double(value)) }
    func set(_ value: Double) { self.value.store(value) }
    func increment(by amount: Double) { self.value.add(amount) }
    func decrement(by amount: Double) { self.value.add(-amount) }
    func record(_ value: Int64) { self.set(value) }
    func record(_ value: Double) { self.set(value) }

    func expose(_ family: MetricFamilyDescription, _ labels: LabelSet, into text: inout String) {
        text += "\(family.name)\(labels.rendered) \(Exposition.number(self.value.load()))\n"
    }
}

/// A distribution over fixed buckets. Serves swift-metrics' timers (in seconds) and its recorders that aggregate.
///
/// One event costs two atomic additions: its bucket and the sum. The count is the sum of the buckets, so that what a
/// scrape sees always adds up.
final class HistogramSeries: Series, TimerHandler, RecorderHandler {
    private let bounds: [Double]
    /// `bounds.count + 1` counters; the last is +Inf's.
    private let counts: AtomicCounters
    private let sum = AtomicDouble()

    init(bounds: [Double]) {
        self.bounds = bounds
        self.counts = AtomicCounters(count: bounds.count + 1)
    }

    func record(_ value: Double) {
        // NaN belongs nowhere and would poison the sum.
        guard value.isFinite else { return }
        var low = 0
        var high = self.bounds.count
        while low < high {
            let middle = (low + high) / 2
            if self.bounds[middle] < value { low = middle + 1 } else { high = middle }
        }
        self.counts.increment(low)
        self.sum.add(value)
    }
    func record(_ value: Int64) { self.record(Double(value)) }
    func recordNanoseconds(_ duration: Int64) { self.record(Double(duration) / 1e9) }

    func expose(_ family: MetricFamilyDescription, _ labels: LabelSet, into text: inout String) {
        var total: UInt64 = 0
        for (index, bound) in self.bounds.enumerated() {
            total &+= self.counts.load(index)
            text += "\(family.name)_bucket\(labels.rendered(with: "le", Exposition.number(bound))) \(total)\n"
        }
        total &+= self.counts.load(self.bounds.count)
        text += "\(family.name)_bucket\(labels.rendered(with: "le", "+Inf")) \(total)\n"
        text += "\(family.name)_sum\(labels.rendered) \(Exposition.number(self.sum.load()))\n"
        text += "\(family.name)_count\(labels.rendered) \(total)\n"
    }
}

/// A `Double` that many threads add to.
final class AtomicDouble: Sendable {
    private let bits = Atomic<UInt64>(0)

    func load() -> Double { Double(bitPattern: self.bits.load(ordering: .relaxed)) }
    func store(_ value: Double) { self.bits.store(value.bitPattern, ordering: .relaxed) }
    func add(_ amount: Double) {
        var old = self.bits.load(ordering: .relaxed)
        while true {
            let new = (Double(bitPattern: old) + amount).bitPattern
            let (exchanged, current) = self.bits.weakCompareExchange(expected: old, desired: new, ordering: .relaxed)
            if exchanged { return }
            old = current
        }
    }
}

/// A fixed row of counters.
final class AtomicCounters: @unchecked Sendable {
    // Unchecked since the pointer isn't Sendable: it is set once, and what it points at is only touched atomically.
    private let cells: UnsafeMutablePointer<Atomic<UInt64>>
    private let count: Int

    init(count: Int) {
        self.count = count
        self.cells = .allocate(capacity: count)
        for index in 0..<count { (self.cells + index).initialize(to: Atomic(0)) }
    }
    deinit {
        self.cells.deinitialize(count: self.count)
        self.cells.deallocate()
    }

    func increment(_ index: Int) { self.cells[index].wrappingAdd(1, ordering: .relaxed) }
    func load(_ index: Int) -> UInt64 { self.cells[index].load(ordering: .relaxed) }
}
