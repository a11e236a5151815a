import CoreMetrics
import Synchronization

/// All series of this process, and the factory that swift-metrics takes them from.
///
/// Making a handle takes a lock and a dictionary look-up; callers keep their handles, and using one takes neither.
/// The same name and labels always give the same series. Series live as long as the process: counters must not start
/// again when a handle goes away.
final class MetricsRegistry: MetricsFactory {
    /// Series of one family; further label sets share one series whose labels all say `other`.
    static let maximumSeriesPerFamily = 1000
    static let maximumFamilies = 1000

    private struct Family {
        let description: MetricFamilyDescription
        var series: [LabelSet: any Series] = [:]
    }
    private struct State {
        var families: [String: Family] = [:]
        var collectors: [@Sendable () -> Void] = []
    }

    private let state = Mutex(State())

    init() {}

    /// Runs `collect` before each exposition, to set gauges that are only computed when somebody asks.
    func onScrape(_ collect: @escaping @Sendable () -> Void) {
        self.state.withLock { $0.collectors.append(collect) }
    }

    /// The whole text, format 0.0.4, families and series in a fixed order.
    func expose() -> String {
        for collect in self.state.withLock({ $0.collectors }) { collect() }
        let families = self.state.withLock { $0.families }
        var text = ""
        text.reserveCapacity(64 * 1024)
        for (name, family) in families.sorted(by: { $0.key < $1.key }) where !family.series.isEmpty {
            text += "# HELP \(name) \(Exposition.escapedHelp(family.description.help))\n"
            text += "# TYPE \(name) \(family.description.kind.rawValue)\n"
            for (labels, series) in family.series.sorted(by: { $0.key.rendered < $1.key.rendered }) {
                series.expose(family.description, labels, into: &text)
            }
        }
        return text
    }

    /// A counter whose total is kept elsewhere; see `CounterSeries.set`.
    func counter(_ name: String, _ labels: [(String, String)] = []) -> CounterSeries {
        self.series(name, labels, .counter) { _ in CounterSeries() }
    }

    func gauge(_ name: String, _ labels: [(String, String)] = []) -> GaugeSeries {
        self.series(name, labels, .gauge) { _ in GaugeSeries() }
    }

    func histogram(_ name: String, _ labels: [(String, String)] = []) -> HistogramSeries {
        self.series(name, labels, .histogram) { HistogramSeries(bounds: $0.buckets) }
    }

    // MARK: MetricsFactory

    func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        self.series(label, dimensions, .counter) { _ in CounterSeries() }
    }

    func makeFloatingPointCounter(
        label: String, dimensions: [(String, String)]
    ) -> any FloatingPointCounterHandler {
        self.series(label, dimensions, .counter) { _ in FloatingPointCounterSeries() }
    }

    func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        self.series(label, dimensions, .gauge) { _ in GaugeSeries() }
    }

    func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        if aggregate {
            return self.series(label, dimensions, .histogram) { HistogramSeries(bounds: $0.buckets) }
        }
        return self.series(label, dimensions, .gauge) { _ in GaugeSeries() }
    }

    func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        self.series(label, dimensions, .histogram) { HistogramSeries(bounds: $0.buckets) }
    }

    func destroyCounter(_ handler: any CounterHandler) {}
    func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {}
    func destroyMeter(_ handler: any MeterHandler) {}
    func destroyRecorder(_ handler: any RecorderHandler) {}
    func destroyTimer(_ handler: any TimerHandler) {}

    // MARK: Series

    /// Finds or makes a series. A name that is already used for another kind gives a series that nobody sees, rather
    /// than an exposition that no scraper accepts.
    private func series<S: Series>(
        _ label: String, _ dimensions: [(String, String)], _ kind: MetricFamilyDescription.Kind,
        make: (MetricFamilyDescription) -> S
    ) -> S {
        let name = Exposition.metricName(label)
        return self.state.withLock { state in
            if state.families[name] == nil, state.families.count >= Self.maximumFamilies {
                return make(Self.describe(name, kind))
            }
            let description = state.families[name]?.description ?? Self.describe(name, kind)
            guard description.kind == kind else { return make(Self.describe("\(name)_\(kind.rawValue)", kind)) }
            var family = state.families[name] ?? Family(description: description)
            var labels = LabelSet(dimensions)
            if family.series[labels] == nil, family.series.count >= Self.maximumSeriesPerFamily {
                labels = LabelSet(dimensions.map { ($0.0, "other") })
            }
            if let existing = family.series[labels] as? S { return existing }
            let made = make(description)
            if family.series[labels] == nil { family.series[labels] = made }
            state.families[name] = family
            return made
        }
    }

    private static func describe(_ name: String, _ kind: MetricFamilyDescription.Kind) -> MetricFamilyDescription {
        if let known = KnownMetrics.byName[name] { return known }
        let buckets = name.hasSuffix("_seconds") ? Buckets.fast : Buckets.counts
        return MetricFamilyDescription(
            name: name, kind: kind, help: "No description.", buckets: kind == .histogram ? buckets : [])
    }
}
