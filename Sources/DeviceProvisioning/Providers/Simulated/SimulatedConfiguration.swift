/// The simulated provider's settings.
public struct SimulatedConfiguration: Sendable {
    /// What a request's `provider_options` start from.
    public var behaviour: SimulatedBehaviour
    /// The hosts whose ports its devices are given. Default: none, which means as many virtual hosts as are needed, each
    /// with the full port ranges.
    public var hosts: [PortHost]
    /// The name of its site.
    public var site = ProviderKind.simulated.name
    /// The name of its pool of ports; sites have pools of their own.
    public var pool = ProviderKind.simulated.name

    public init(behaviour: SimulatedBehaviour = SimulatedBehaviour(), hosts: [PortHost] = []) {
        self.behaviour = behaviour
        self.hosts = hosts
    }

    /// Caps the supply, so that ports can run out: `count` hosts with these ranges.
    public static func cappedHosts(
        count: Int, adb: ClosedRange<Int>, webRTC: ClosedRange<Int>
    ) -> [PortHost] {
        (0..<max(count, 0)).map { PortHost(name: "sim-capped-\($0 + 1)", adb: adb, webRTC: webRTC) }
    }

    /// Reads options as configuration writes them: `name=value`, joined by `;`, e.g. `fail=create:unavailable;fail_times=2`.
    public mutating func apply(options text: String, key: String) throws(ProviderConfigurationError) {
        var options: [String: String] = [:]
        for part in text.split(separator: ";") {
            guard let separator = part.firstIndex(of: "=") else {
                throw ProviderConfigurationError(key: key, problem: "must be name=value, joined by ;")
            }
            options[String(part[..<separator])] = String(part[part.index(after: separator)...])
        }
        var problems: [SimulatedBehaviour.Problem] = []
        let behaviour = self.behaviour.applying(options, problems: &problems)
        if let problem = problems.first {
            throw ProviderConfigurationError(key: key, problem: "\(problem.option) \(problem.description)")
        }
        self.behaviour = behaviour
    }
}
