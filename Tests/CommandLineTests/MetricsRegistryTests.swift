import CoreMetrics
import Testing

@testable import devicerpc

@Suite struct MetricsRegistryTests {
    @Test func countersGaugesAndHistogramsAreExposed() {
        let registry = MetricsRegistry()
        Counter(
            label: "rpc_server_calls_total", dimensions: [("method", "a\"b\\c\nd"), ("code", "OK")], factory: registry
        )
        .increment(by: 3)
        Meter(label: "saga_parked", factory: registry).set(2)
        let timer = Timer(label: "saga_flush_duration_seconds", factory: registry)
        timer.recordMilliseconds(3)
        timer.recordSeconds(20)
        let text = registry.expose()
        #expect(
            text.hasPrefix(
                """
                # HELP rpc_server_calls_total Calls that ended, by method and status code.
                # TYPE rpc_server_calls_total counter
                rpc_server_calls_total{code="OK",method="a\\"b\\\\c\\nd"} 3
                # HELP saga_flush_duration_seconds Time of one journal transaction, from BEGIN to COMMIT.
                # TYPE saga_flush_duration_seconds histogram
                saga_flush_duration_seconds_bucket{le="0.0001"} 0

                """))
        #expect(text.contains("saga_flush_duration_seconds_bucket{le=\"0.0025\"} 0\n"))
        #expect(text.contains("saga_flush_duration_seconds_bucket{le=\"0.005\"} 1\n"))
        #expect(text.contains("saga_flush_duration_seconds_bucket{le=\"10\"} 1\n"))
        #expect(text.contains("saga_flush_duration_seconds_bucket{le=\"+Inf\"} 2\n"))
        #expect(text.contains("saga_flush_duration_seconds_sum 20.003\n"))
        #expect(text.contains("saga_flush_duration_seconds_count 2\n"))
        #expect(text.hasSuffix("saga_parked 2\n"))
    }

    @Test func theSameNameAndLabelsAreOneSeries() {
        let registry = MetricsRegistry()
        for labels in [[("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")]] {
            Counter(label: "x_total", dimensions: labels, factory: registry).increment()
        }
        #expect(registry.expose().hasSuffix("x_total{a=\"1\",b=\"2\"} 2\n"))
    }

    @Test func labelsBeyondTheBoundShareOneSeries() {
        let registry = MetricsRegistry()
        for number in 0..<(MetricsRegistry.maximumSeriesPerFamily + 5) {
            Counter(label: "x_total", dimensions: [("n", "\(number)")], factory: registry).increment()
        }
        let text = registry.expose()
        #expect(text.contains("x_total{n=\"other\"} 5\n"))
        #expect(text.split(separator: "\n").count == MetricsRegistry.maximumSeriesPerFamily + 3)
    }

    @Test func aNameOfTwoKindsKeepsTheFirst() {
        let registry = MetricsRegistry()
        Counter(label: "x", factory: registry).increment()
        Meter(label: "x", factory: registry).set(9)
        #expect(registry.expose().hasSuffix("# TYPE x counter\nx 1\n"))
    }

    @Test func namesBecomeValid() {
        #expect(Exposition.metricName("9 a.b-c:d") == "_9_a_b_c:d")
        #expect(Exposition.labelName("le:x") == "le_x")
        #expect(Exposition.number(.infinity) == "+Inf")
        #expect(Exposition.number(1e20) == "1e+20")
        #expect(Exposition.number(-0.5) == "-0.5")
    }

    @Test func notANumberIsNotRecorded() {
        let registry = MetricsRegistry()
        let recorder = Recorder(label: "r", factory: registry)
        recorder.record(Double.nan)
        recorder.record(1)
        #expect(registry.expose().contains("r_sum 1\nr_count 1\n"))
    }

    @Test func manyThreadsLoseNothing() async {
        let registry = MetricsRegistry()
        let timer = Timer(label: "t_seconds", factory: registry)
        let counter = Counter(label: "c_total", factory: registry)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<10_000 {
                        timer.recordNanoseconds(1_000_000_000)
                        counter.increment()
                    }
                }
            }
        }
        let text = registry.expose()
        #expect(text.contains("c_total 80000\n"))
        #expect(text.contains("t_seconds_sum 80000\n"))
        #expect(text.contains("t_seconds_count 80000\n"))
    }

    @Test func whatIsComputedIsComputedAtScrape() {
        let registry = MetricsRegistry()
        let gauge = registry.makeMeter(label: "age", dimensions: [])
        registry.onScrape { gauge.set(Int64(7)) }
        #expect(registry.expose().contains("age 7\n"))
    }
}
