/// The longest that each call to a provider takes, all its requests together, before it counts as unknown.
public struct ProviderCallLimits: Sendable, Equatable {
    public var create: Duration
    /// To the end: started, reachable, booted.
    public var start: Duration
    public var stop: Duration
    public var destroy: Duration
    public var find: Duration

    public init(create: Duration, start: Duration, stop: Duration, destroy: Duration, find: Duration) {
        self.create = create
        self.start = start
        self.stop = stop
        self.destroy = destroy
        self.find = find
    }
}
