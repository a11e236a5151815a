public import SagaRuntime
import Synchronization

/// The sites that this server is configured for, and their providers.
public final class ProviderRegistry: Sendable {
    public let sites: [ProviderSite]
    /// What `PROVIDER_UNSPECIFIED` means here.
    public let defaultKind: ProviderKind
    private let byName: [String: ProviderSite]
    /// The sites of the whole cluster, these included.
    private let known: Mutex<[ProviderKind: Set<String>]>
    /// Engines that have devices, by the hosts of their ports: an older program registers no site.
    private let portHosts = Mutex<Set<String>>([])
    private let room = Mutex<[String: SiteRoom]>([:])

    /// - Parameters:
    ///   - sites: with unique names.
    ///   - defaultKind: must be a provider of `sites` for requests that name none to succeed.
    public init(sites: [ProviderSite], default defaultKind: ProviderKind) {
        self.sites = sites
        self.byName = Dictionary(sites.map { ($0.name, $0) }) { first, _ in first }
        self.defaultKind = defaultKind
        self.known = Mutex(
            Dictionary(grouping: sites, by: \.provider.kind).mapValues { Set($0.map(\.name)) })
    }

    /// One site for each provider.
    public convenience init(_ providers: [any DeviceProvider], default defaultKind: ProviderKind) {
        self.init(
            sites: providers.map { ProviderSite(name: Self.siteName(of: $0), provider: $0) }, default: defaultKind)
    }

    /// Of a provider that is configured without a file of sites: an engine is called as its host in the port pool, so that the
    /// rows from before there were sites are its.
    public static func siteName(of provider: any DeviceProvider) -> String {
        provider.kind == .redroid ? provider.hosts.first?.name ?? provider.kind.name : provider.kind.name
    }

    public func sites(of kind: ProviderKind) -> [ProviderSite] { self.sites.filter { $0.provider.kind == kind } }

    public var kinds: [ProviderKind] {
        Set(self.sites.map(\.provider.kind)).sorted { $0.rawValue < $1.rawValue }
    }

    /// What keeps every site of a provider from doing this: the fewest complaints that any of them has.
    public func violations(_ kind: ProviderKind, spec: DeviceSpec, options: [String: String]) -> [ProviderViolation] {
        self.sites(of: kind).map { $0.provider.violations(spec: spec, options: options) }
            .min { $0.count < $1.count } ?? []
    }

    /// The longest limits among all providers; a step has one for all of them.
    var callLimits: ProviderCallLimits {
        self.sites.map(\.provider.callLimits).reduce(
            ProviderCallLimits(
                create: .seconds(1), start: .seconds(1), stop: .seconds(1), destroy: .seconds(1), find: .seconds(1))
        ) { longest, limits in
            ProviderCallLimits(
                create: max(longest.create, limits.create), start: max(longest.start, limits.start),
                stop: max(longest.stop, limits.stop), destroy: max(longest.destroy, limits.destroy),
                find: max(longest.find, limits.find))
        }
    }

    /// How long an effect may stay unseen at any site of the provider; `nil`: none is configured here.
    func lag(of kind: ProviderKind, options: [String: String]) -> Duration? {
        self.sites(of: kind).map { $0.provider.lag(options: options) }.max()
    }

    /// What grants ports to sagas of version 1, by provider.
    var portPools: [ProviderKind: PortPool] {
        var pools: [ProviderKind: PortPool] = [:]
        for kind in self.kinds {
            pools[kind] = PortPool.merged(self.sites(of: kind).compactMap(\.provider.portPool)).first
        }
        return pools
    }

    // MARK: Which site

    /// Where a saga of version 2 may go, the best first: where it is, or else what its request named, or any that serves it.
    func places(_ view: SagaView, _ request: DeviceRequest) -> [ProviderSite] {
        if let name = SiteOutput.site(view.outputs) {
            return self.site(named: name, kind: request.provider).map { [$0] } ?? []
        }
        let wished = view.sites.compactMap { self.site(named: $0, kind: request.provider) }.filter(self.canServe)
        if !wished.isEmpty { return wished }
        return self.sites(of: request.provider).filter { site in
            // Options are secrets, and not at hand here: a site that won't have them says so when it is called.
            self.canServe(site) && site.provider.violations(spec: request.spec, options: [:]).isEmpty
        }.shuffled()
    }

    /// The names of all sites of the cluster, as they were seen last.
    func know(_ names: [ProviderKind: Set<String>]) { self.known.withLock { $0 = names } }

    /// The hosts of the ports that devices of engines have, as they were seen last.
    func know(portHosts: Set<String>) { self.portHosts.withLock { $0 = portHosts } }

    /// All sites of a provider, as far as is known.
    private func names(of kind: ProviderKind) -> Set<String> {
        let hosts = kind == .redroid ? self.portHosts.withLock { $0 } : []
        return self.known.withLock { $0[kind, default: []] }.union(hosts).union(self.sites(of: kind).map(\.name))
    }

    /// What this process can go on with: its sites, and what stands for them in sagas that name none.
    public var served: Set<String> {
        var served: Set<String> = []
        for site in self.sites where self.canServe(site) {
            served.insert(site.name)
            served.insert(SiteName.any(of: site.provider.kind))
        }
        return served
    }

    /// Whether calls to a site can be made, and the site is what the cluster knows by its name.
    func canServe(_ site: ProviderSite) -> Bool { site.provider.canServe && self.stranger(of: site) == nil }

    /// The provider that another replica's site of the same name has; `nil`: none.
    func stranger(of site: ProviderSite) -> ProviderKind? {
        self.known.withLock { known in
            known.first { $0.key != site.provider.kind && $0.value.contains(site.name) }?.key
        }
    }

    /// The site that a saga of version 2 names.
    func site(named name: String, kind: ProviderKind) -> ProviderSite? {
        self.byName[name].flatMap { $0.provider.kind == kind ? $0 : nil }
    }

    /// The site of a saga of version 1, which names none: the one of its port host, or the only one that there is. `nil`: what
    /// is not found here may be elsewhere.
    func site(of kind: ProviderKind, portHost: String?) -> ProviderSite? {
        if let portHost, let site = self.site(named: portHost, kind: kind) { return site }
        let sites = self.sites(of: kind)
        guard let first = sites.first else { return nil }
        if first.provider.sitesShareDevices { return first }
        return self.names(of: kind).count == 1 ? first : nil
    }

    /// What is free at the sites, as it was seen last; a site that isn't in it isn't limited.
    func know(room: [String: SiteRoom]) { self.room.withLock { $0 = room } }

    /// Whether a site had room for a device, as it was seen last.
    public func hasRoom(_ site: String, for spec: DeviceSpec) -> Bool {
        self.room.withLock { $0[site]?.has(memoryMB: spec.memoryMB) ?? true }
    }

    /// For want of what no site takes a device.
    func refusal(of request: DeviceRequest) -> StepError {
        let sites = self.sites(of: request.provider).filter(self.canServe)
        if sites.isEmpty { return SiteStatements.noSite }
        let isFull = sites.allSatisfy { $0.limitsBeforePorts || !self.hasRoom($0.name, for: request.spec) }
        return isFull ? SiteStatements.noRoom : SiteStatements.noPorts
    }

    /// What this process lacks to go on with a saga of version 1, as far as is known.
    func missing(for kind: ProviderKind, portHost: String?) -> String? {
        if self.site(of: kind, portHost: portHost) != nil { return nil }
        if let portHost, self.names(of: kind).contains(portHost) { return portHost }
        return self.sites(of: kind).isEmpty ? SiteName.any(of: kind) : nil
    }

    /// What a breaker calls the other side of a saga's calls.
    func dependency(of request: [UInt8], outputs: [String: String]) -> String? {
        if let site = SiteOutput.site(outputs) { return Self.dependency(ofSite: site) }
        return (try? DeviceRequest(decoding: request)).map { "provider-\($0.provider.name)" }
    }

    public static func dependency(ofSite site: String) -> String { "site-\(site)" }

    /// What a site can take, by the name that breakers have for it.
    public func callLimits(_ dependency: String) -> (site: String, limits: CallLimits)? {
        guard dependency.hasPrefix("site-"), let site = self.byName[String(dependency.dropFirst(5))] else { return nil }
        let limits = CallLimits(concurrency: site.limits.concurrency, callsPerSecond: site.limits.callsPerSecond)
        return limits == CallLimits() ? nil : (site.name, limits)
    }

    /// What a site costs that only other replicas call; where the saga would wait until it is too late; that is down, or full, as was
    /// seen last; beside how long a saga would wait there.
    public static let elsewhereCost = 1e5
    public static let lateCost = 2e5
    public static let downCost = 1e6
    public static let fullCost = 1e9
    private static let costs = [elsewhereCost, lateCost, downCost, fullCost]

    /// Sites for a new saga, the best first: those that can serve it; then those that only others call; then those that would be late, are down,
    /// or full. Of two random ones of the first kind the better comes first, so that not all replicas choose the same.
    ///
    /// - Parameter cost: how long a saga would wait there, in seconds, and one of the costs above.
    public func candidates(
        _ kind: ProviderKind, spec: DeviceSpec, options: [String: String], cost: (ProviderSite) -> Double
    ) -> [ProviderSite] {
        let sites = self.sites(of: kind)
        var costs: [(site: ProviderSite, cost: Double)] = sites.compactMap { site in
            // Where there is only one, the request was checked for it.
            let suits = sites.count == 1 || site.provider.violations(spec: spec, options: options).isEmpty
            return suits && self.canServe(site) ? (site, cost(site)) : nil
        }
        guard costs.count > 1 else { return costs.map(\.site) }
        func rank(_ cost: Double) -> Int { Self.costs.count { cost >= $0 } }
        costs.shuffle()
        costs.sort { rank($0.cost) < rank($1.cost) }
        if costs[1].cost < costs[0].cost { costs.swapAt(0, 1) }
        return costs.map(\.site)
    }

    public func shutdown() async {
        for site in self.sites { await site.provider.shutdown() }
    }
}
