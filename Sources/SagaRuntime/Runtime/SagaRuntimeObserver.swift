/// What the runtime tells its surroundings: metrics are made from it. Called from any thread; must not block.
public protocol SagaRuntimeObserver: Sendable {
    func sagaStarted(type: String)
    /// The saga is over, or parked. `duration`: since it was created.
    func sagaEnded(type: String, status: SagaStatus, failure: SagaFailure?, duration: Duration)
    func stepRetried(type: String, step: String, isCompensation: Bool)
    /// It failed for good: its saga turns back, or parks.
    func stepFailed(type: String, step: String)
    func stepCompensated(type: String, step: String)
    func sagaAdopted(type: String)
    /// A saga that this process drives has consumed a command.
    func commandConsumed(_ kind: SagaCommand.Kind, _ result: SagaCommand.Result)
    func flushed(records: Int, duration: Duration)
    /// A dependency was found to be down (`isOpen`), or to be back.
    func breakerChanged(dependency: String, isOpen: Bool)
    /// A saga was asked for whose history this binary can't read.
    func sagaUnreadable()
    /// How many sagas sleep, in the whole cluster, and how many are under way whose site no live instance serves; told every few
    /// seconds.
    func waiting(asleep: Int, unserved: Int)
    /// Gauges, told every few seconds. `inProgress`: sagas that this process drives, by type.
    func measured(inProgress: [String: Int], parked: Int, quarantined: Int, leaseAge: Duration, daysAhead: Int)
    /// Whether all live instances know a feature: only then newer programs do what older ones would misread. Told every second.
    func featureSwitched(_ feature: String, isOn: Bool)
}

extension SagaRuntimeObserver {
    public func sagaStarted(type: String) {}
    public func sagaEnded(type: String, status: SagaStatus, failure: SagaFailure?, duration: Duration) {}
    public func stepRetried(type: String, step: String, isCompensation: Bool) {}
    public func stepFailed(type: String, step: String) {}
    public func stepCompensated(type: String, step: String) {}
    public func sagaAdopted(type: String) {}
    public func commandConsumed(_ kind: SagaCommand.Kind, _ result: SagaCommand.Result) {}
    public func flushed(records: Int, duration: Duration) {}
    public func breakerChanged(dependency: String, isOpen: Bool) {}
    public func sagaUnreadable() {}
    public func waiting(asleep: Int, unserved: Int) {}
    public func measured(inProgress: [String: Int], parked: Int, quarantined: Int, leaseAge: Duration, daysAhead: Int) {
    }
    public func featureSwitched(_ feature: String, isOn: Bool) {}
}

/// Looks away.
public struct NoObserver: SagaRuntimeObserver {
    public init() {}
}
