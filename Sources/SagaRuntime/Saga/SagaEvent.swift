/// One durable fact about a saga, as watchers see it. Sequences start at 1 and have no gaps.
public struct SagaEvent: Sendable, Equatable {
    public var sequence: UInt32
    public var time: Timestamp
    public var type: SagaEventType
    /// Empty for events of the whole saga.
    public var step: String
    public var stepIndex: Int
    /// From 1; 0 for events that are no attempt's.
    public var attempt: Int
    public var message: String
    /// The saga's status right after this event.
    public var sagaStatus: SagaStatus
    /// Steps that succeeded or were skipped, and are not undone.
    public var stepsDone: Int
    public var stepsTotal: Int
    public var reason: String
    /// STEP_RETRYING: when the next attempt starts.
    public var retryAt: Timestamp?
}
