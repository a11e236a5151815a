/// The providers that this server is configured for.
public struct ProviderRegistry: Sendable {
    private let providers: [ProviderKind: any DeviceProvider]
    /// What `PROVIDER_UNSPECIFIED` means here.
    public let defaultKind: ProviderKind

    /// - Parameter defaultKind: must be among `providers` for requests that name none to succeed.
    public init(_ providers: [any DeviceProvider], default defaultKind: ProviderKind) {
        var byKind: [ProviderKind: any DeviceProvider] = [:]
        for provider in providers { byKind[provider.kind] = provider }
        self.providers = byKind
        self.defaultKind = defaultKind
    }

    public subscript(kind: ProviderKind) -> (any DeviceProvider)? { self.providers[kind] }

    public var kinds: [ProviderKind] { self.providers.keys.sorted { $0.rawValue < $1.rawValue } }

    public var all: [any DeviceProvider] { self.kinds.compactMap { self.providers[$0] } }

    /// How the ports of each provider that needs some are granted.
    var portPools: [ProviderKind: PortPool] { self.providers.compactMapValues(\.portPool) }

    /// The longest limits among all providers; a step has one for all of them.
    var callLimits: ProviderCallLimits {
        self.providers.values.reduce(
            ProviderCallLimits(
                create: .seconds(1), start: .seconds(1), stop: .seconds(1), destroy: .seconds(1), find: .seconds(1))
        ) { longest, provider in
            let limits = provider.callLimits
            return ProviderCallLimits(
                create: max(longest.create, limits.create), start: max(longest.start, limits.start),
                stop: max(longest.stop, limits.stop), destroy: max(longest.destroy, limits.destroy),
                find: max(longest.find, limits.find))
        }
    }

    /// What a breaker calls the provider of a saga's stored request.
    func dependency(of request: [UInt8]) -> String? {
        (try? DeviceRequest(decoding: request)).map { "provider-\($0.provider.name)" }
    }

    public func shutdown() async {
        for provider in self.all { await provider.shutdown() }
    }
}
