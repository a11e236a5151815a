public import SagaRuntime

/// Which devices to list; all conditions hold at once. Empty means any.
public struct DeviceFilter: Sendable, Equatable {
    public var userID = ""
    /// Names without prefix, e.g. `RUNNING`.
    public var statuses: [String] = []
    /// `nil`: any.
    public var provider: ProviderKind?
    public var batchID = ""
    /// Compared byte by byte.
    public var namePrefix = ""
    /// A whole one.
    public var tag = ""
    /// What is outside of it is left out.
    public var visibility = Visibility.all

    public init(
        userID: String = "", statuses: [String] = [], provider: ProviderKind? = nil, batchID: String = "",
        namePrefix: String = "", tag: String = "", visibility: Visibility = .all
    ) {
        self.userID = userID
        self.statuses = statuses
        self.provider = provider
        self.batchID = batchID
        self.namePrefix = namePrefix
        self.tag = tag
        self.visibility = visibility
    }
}
