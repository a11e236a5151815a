/// The systems that can make a device, with the contract's numbers.
public enum ProviderKind: Int, Sendable, Codable, CaseIterable {
    case simulated = 1
    case redroid = 2
    case huaweiCPH = 3
    case aliyunECP = 4
    case physical = 5

    /// The name that configuration, the database and the command line use: the contract's, in lower case.
    public var name: String {
        switch self {
        case .simulated: "simulated"
        case .redroid: "redroid"
        case .huaweiCPH: "huawei_cph"
        case .aliyunECP: "aliyun_ecp"
        case .physical: "physical"
        }
    }

    public init?(name: String) {
        guard let kind = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = kind
    }
}
