import RPCTransport

/// Counts and times calls by method and status code. On the path of every call: no lock, no allocation.
final class RPCMetrics: RPCObserver {
    private final class Method: Sendable {
        let label: String
        let started = AtomicCounters(count: 1)
        let retries = AtomicCounters(count: 1)
        let ended = AtomicCounters(count: RPCCode.allCases.count)
        let durations: HistogramSeries

        init(label: String, durations: HistogramSeries) {
            self.label = label
            self.durations = durations
        }
    }

    /// By path. Fixed: methods are known before the first call.
    private let methods: [String: Method]
    private let registry: MetricsRegistry
    /// A series each from the start: rates need a zero to start from.
    private let refusals: [RPCRefusal: CounterSeries]

    init(services: [RPCService], registry: MetricsRegistry) {
        var methods: [String: Method] = [:]
        for service in services {
            for method in service.methods {
                let label = "\(service.name)/\(method.name)"
                methods["/" + label] = Method(
                    label: label, durations: registry.histogram("rpc_server_call_duration_seconds", [("method", label)])
                )
            }
        }
        self.methods = methods
        self.registry = registry
        self.refusals = Dictionary(
            uniqueKeysWithValues: RPCRefusal.allCases.map { ($0, Self.counter(of: $0, in: registry)) })
        let all = Array(methods.values)
        registry.onScrape { [unowned registry] in Self.publish(all, registry) }
    }

    func callStarted(method: String) { self.methods[method]?.started.increment(0) }

    func callIsRetry(method: String) { self.methods[method]?.retries.increment(0) }

    func callEnded(method: String, code: RPCCode, duration: Duration) {
        guard let method = self.methods[method] else { return }
        method.ended.increment(code.rawValue)
        let (seconds, attoseconds) = duration.components
        method.durations.record(Double(seconds) + Double(attoseconds) / 1e18)
    }

    func certificateLoaded(notAfter: Int64) {
        self.registry.gauge("rpc_server_tls_certificate_not_after_seconds").set(Double(notAfter))
        self.registry.counter("rpc_server_tls_reloads_total", [("outcome", "loaded")]).increment(by: 1)
        // Rates need a zero to start from.
        _ = self.registry.counter("rpc_server_tls_reloads_total", [("outcome", "rejected")])
    }

    func certificateRejected() {
        self.registry.counter("rpc_server_tls_reloads_total", [("outcome", "rejected")]).increment(by: 1)
    }

    func refused(_ refusal: RPCRefusal) { self.refusals[refusal]?.increment(by: 1) }

    /// Of what is refused, or held back, elsewhere than in the transport.
    static func count(_ refusal: RPCRefusal, in registry: MetricsRegistry) {
        self.counter(of: refusal, in: registry).increment(by: 1)
    }

    private static func counter(of refusal: RPCRefusal, in registry: MetricsRegistry) -> CounterSeries {
        registry.counter(
            "rpc_server_refusals_total", [("reason", refusal.rawValue), ("scope", refusal.scope.rawValue)])
    }

    private static func publish(_ methods: [Method], _ registry: MetricsRegistry) {
        for method in methods {
            var ended: UInt64 = 0
            for code in RPCCode.allCases {
                let count = method.ended.load(code.rawValue)
                ended &+= count
                // A code that never came has no series, but for OK: rates need a zero to start from.
                if count == 0, code != .ok { continue }
                registry.counter("rpc_server_calls_total", [("method", method.label), ("code", code.name)])
                    .set(Int64(clamping: count))
            }
            let retries = method.retries.load(0)
            if retries > 0 {
                registry.counter("rpc_server_retries_total", [("method", method.label)]).set(Int64(clamping: retries))
            }
            let started = method.started.load(0)
            registry.gauge("rpc_server_calls_in_progress", [("method", method.label)])
                .set(Double(started) - Double(min(started, ended)))
        }
    }
}
