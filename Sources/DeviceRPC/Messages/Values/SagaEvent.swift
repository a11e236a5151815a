import Proto
public import SagaRuntime

extension V1 {
    /// One durable fact about a saga. Sequences start at 1 and have no gaps. A saga's state can be told from its
    /// events.
    public struct SagaEvent: ProtobufMessage {
        public var sagaID = ""
        public var sequence: UInt32 = 0
        public var time: Timestamp?
        public var type: SagaEventType = .unspecified
        /// Empty for events of the whole saga.
        public var step = ""
        public var stepIndex: UInt32 = 0
        /// From 1.
        public var attempt: UInt32 = 0
        /// Error or note, for people.
        public var message = ""
        /// The saga's status right after this event.
        public var sagaStatus: SagaStatus = .unspecified
        /// Succeeded or skipped, and not undone.
        public var stepsDone: UInt32 = 0
        public var stepsTotal: UInt32 = 0
        /// As SagaFailure.reason.
        public var reason = ""
        /// STEP_RETRYING, either direction: when the next attempt starts.
        public var retryAt: Timestamp?

        public init() {}
    }
}

extension V1.SagaEvent: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__SagaEvent>) {
        cloudphone__device__v1__saga_event__init(message)
    }

    init(_ message: Cloudphone__Device__V1__SagaEvent) {
        self.sagaID = String(wire: message.saga_id)
        self.sequence = message.sequence
        self.time = Timestamp(wire: message.time)
        self.type = V1.SagaEventType(wire: message.type.rawValue)
        self.step = String(wire: message.step)
        self.stepIndex = message.step_index
        self.attempt = message.attempt
        self.message = String(wire: message.message)
        self.sagaStatus = V1.SagaStatus(wire: message.saga_status.rawValue)
        self.stepsDone = message.steps_done
        self.stepsTotal = message.steps_total
        self.reason = String(wire: message.reason)
        self.retryAt = Timestamp(wire: message.retry_at)
    }

    func fill(_ message: inout Cloudphone__Device__V1__SagaEvent, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        message.sequence = self.sequence
        message.time = arena.timestamp(self.time)
        message.type = .init(rawValue: self.type.wire)
        if !self.step.isEmpty { message.step = arena.string(self.step) }
        message.step_index = self.stepIndex
        message.attempt = self.attempt
        if !self.message.isEmpty { message.message = arena.string(self.message) }
        message.saga_status = .init(rawValue: self.sagaStatus.wire)
        message.steps_done = self.stepsDone
        message.steps_total = self.stepsTotal
        if !self.reason.isEmpty { message.reason = arena.string(self.reason) }
        message.retry_at = arena.timestamp(self.retryAt)
    }
}
