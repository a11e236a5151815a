import RPCTransport
import SagaRuntime
/// Keeps a fixed number of calls in flight and measures each.
struct LoadGenerator {
    enum Limit: Sendable {
        case calls(Int)
        case duration(Duration)
    }

    let inFlight: Int
    let limit: Limit
    /// How long a worker rests after each call, so that a server's idle latency can be told from that under load.
    var pause = Duration.zero

    /// - Parameter call: one call; told which worker makes it, so that workers can share connections.
    func run(_ call: @escaping @Sendable (_ worker: Int) async throws -> Void) async -> LoadResult {
        let started = ContinuousClock.now
        let tickets = Ticket()
        let (limit, pause) = (self.limit, self.pause)
        return await withTaskGroup(of: LoadResult.self) { group in
            for worker in 0..<self.inFlight {
                group.addTask {
                    var result = LoadResult()
                    while true {
                        switch limit {
                        case .calls(let count):
                            if tickets.next() >= count { return result }
                        case .duration(let duration):
                            if ContinuousClock.now - started >= duration { return result }
                        }
                        await result.measure { try await call(worker) }
                        if pause > .zero { try? await Task.sleep(for: pause) }
                    }
                }
            }
            var total = LoadResult()
            for await result in group { total.merge(result) }
            total.elapsed = .now - started
            return total
        }
    }
}

/// What a load brought to light.
struct LoadResult: Sendable {
    /// Of calls that succeeded.
    private(set) var latencies = LatencyHistogram()
    /// Calls that failed, by status and reason.
    private(set) var errors: [String: Int] = [:]
    var elapsed = Duration.zero

    mutating func measure(_ call: () async throws -> Void) async {
        let start = ContinuousClock.now
        do {
            try await call()
            self.record(latency: ContinuousClock.now - start)
        } catch {
            self.record(error: error)
            // A server that is away must not turn the load into a spin.
            if (error as? CallFailure)?.isRetryable == true { try? await Task.sleep(for: .milliseconds(50)) }
        }
    }

    mutating func record(latency: Duration) { self.latencies.record(microseconds: latency.wholeMicroseconds) }

    mutating func record(error: any Error) {
        guard let failure = error as? CallFailure else {
            self.errors["\(error)", default: 0] += 1
            return
        }
        let kind = [failure.code.name, failure.reason].filter { !$0.isEmpty }.joined(separator: " ")
        self.errors[kind, default: 0] += 1
    }

    mutating func record(_ error: String, count: Int) { self.errors[error, default: 0] += count }

    mutating func merge(_ other: LoadResult) {
        self.latencies.merge(other.latencies)
        self.errors.merge(other.errors, uniquingKeysWith: +)
    }

    private var seconds: Double {
        Double(self.elapsed.components.seconds) + Double(self.elapsed.components.attoseconds) / 1e18
    }

    private var rate: Double { self.seconds > 0 ? Double(self.latencies.count) / self.seconds : 0 }

    private static let percentiles: [(String, Double)] = [("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9)]

    func text() -> String {
        var fields = [
            ("calls", "\(self.latencies.count)"), ("errors", "\(self.errors.values.reduce(0, +))"),
            ("time", Self.fixed(self.seconds, 2) + " s"), ("rate", Self.fixed(self.rate, 1) + " calls/s"),
            ("mean", Self.milliseconds(self.latencies.mean) + " ms"),
        ]
        for (name, percent) in Self.percentiles {
            fields.append((name, Self.milliseconds(Double(self.latencies.percentile(percent))) + " ms"))
        }
        fields.append(("max", Self.milliseconds(Double(self.latencies.maximum)) + " ms"))
        for (kind, count) in self.errors.sorted(by: { $0.key < $1.key }) {
            fields.append(("error \(kind)", "\(count)"))
        }
        return DeviceText.fields(fields)
    }

    func json(_ method: String, _ inFlight: Int, _ connections: Int) -> String {
        var text = "{\"method\":\"\(method)\",\"in_flight\":\(inFlight),\"connections\":\(connections)"
        text += ",\"seconds\":\(Self.fixed(self.seconds, 3)),\"calls\":\(self.latencies.count)"
        text += ",\"calls_per_second\":\(Self.fixed(self.rate, 1)),\"latency_ms\":{"
        text += "\"mean\":\(Self.milliseconds(self.latencies.mean))"
        for (name, percent) in Self.percentiles {
            text += ",\"\(name)\":\(Self.milliseconds(Double(self.latencies.percentile(percent))))"
        }
        text += ",\"max\":\(Self.milliseconds(Double(self.latencies.maximum)))},\"errors\":{"
        text += self.errors.sorted { $0.key < $1.key }.map { "\(JSONText.quoted($0.key)):\($0.value)" }
            .joined(separator: ",")
        return text + "}}"
    }

    private static func milliseconds(_ microseconds: Double) -> String { Self.fixed(microseconds / 1000, 3) }

    private static func fixed(_ value: Double, _ digits: Int) -> String {
        let scale = (0..<digits).reduce(1) { scale, _ in scale * 10 }
        let scaled = Int((value * Double(scale)).rounded())
        let fraction = String(scaled % scale)
        return "\(scaled / scale)." + String(repeating: "0", count: digits - fraction.count) + fraction
    }
}
