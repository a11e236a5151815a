/// A device, or what is left of one, as its provider knows it. Output of CREATE_PROVIDER_DEVICE, so at most a few
/// hundred bytes as JSON, and without secrets.
public struct ProviderDevice: Sendable, Equatable, Codable {
    /// The provider's own id.
    public var externalID: String
    /// Where it runs, as `PortHost.name` or a region; empty where that means nothing.
    public var host: String
    /// The generation that it was made under.
    public var generation: Int
    /// False: a remnant or something half made (a volume without a container, a container that never started). It
    /// counts for undo and audit, but must not be adopted as the result of a create.
    public var isUsable: Bool
    /// What the provider needs to find its parts again; provider specific.
    public var attributes: [String: String]

    public init(
        externalID: String, host: String, generation: Int, isUsable: Bool = true, attributes: [String: String] = [:]
    ) {
        self.externalID = externalID
        self.host = host
        self.generation = generation
        self.isUsable = isUsable
        self.attributes = attributes
    }
}
