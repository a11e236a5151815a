/// The pairs of ports that one provider's devices are given: those of its hosts, or an endless supply.
public struct PortPool: Sendable, Equatable {
    public enum Supply: Sendable, Equatable {
        /// The pairs of these hosts, kept as rows; none left means PORTS_EXHAUSTED.
        case hosts([PortHost])
        /// Virtual hosts `<prefix>-00001`, …, each with the full ranges; their pairs are numbered by a sequence, and a row is
        /// made when a pair is first granted.
        case endless(prefix: String)
    }

    /// `port.pool`; a pair is only granted to sagas of its pool.
    public var name: String
    public var supply: Supply

    public init(name: String, supply: Supply) {
        self.name = name
        self.supply = supply
    }

    /// One for each name: the engines of a provider share a pool, each with a host of its own.
    static func merged(_ pools: [PortPool]) -> [PortPool] {
        Dictionary(grouping: pools, by: \.name).values.map { pools in
            let hosts = pools.flatMap { pool -> [PortHost] in
                if case .hosts(let hosts) = pool.supply { hosts } else { [] }
            }
            return hosts.isEmpty ? pools[0] : PortPool(name: pools[0].name, supply: .hosts(hosts))
        }.sorted { $0.name < $1.name }
    }
}
