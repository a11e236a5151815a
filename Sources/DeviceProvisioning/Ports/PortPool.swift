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
}
