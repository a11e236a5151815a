import Proto
public import SagaRuntime

extension V1 {
    /// One durable run of a saga: an ordered list of steps, each with an execute and a compensate side. Clients ignore
    /// event types, reasons and steps that they don't know.
    public struct Saga: ProtobufMessage {
        /// Saga_<unix milliseconds, 13 digits>_<random>, e.g. saga_1730188800000_7k2m9x4q1c.
        public var sagaID = ""
        /// DEVICE_CREATION, DEVICE_DELETION.
        public var type = ""
        public var status: SagaStatus = .unspecified
        /// Index of current_step; the last step's index once completed.
        public var stepIndex: UInt32 = 0
        /// E.g. CREATE_PROVIDER_DEVICE.
        public var currentStep = ""
        /// Every step of the plan, in forward order.
        public var steps: [SagaStep] = []
        /// Unset while nothing went wrong.
        public var failure: SagaFailure?
        public var deviceID = ""
        public var userID = ""
        public var createdAt: Timestamp?
        public var updatedAt: Timestamp?
        /// Forward work past this instant is undone.
        public var deadline: Timestamp?
        /// Set once status is terminal.
        public var completedAt: Timestamp?
        /// Sequence of the newest event; pass it to WatchSaga.after_sequence.
        public var lastSequence: UInt32 = 0
        public var requestID = ""
        public var batchID = ""
        /// Its rows can't be read, or the database refuses its records: nobody drives it.
        public var isQuarantined = false
        /// Set while it waits for an instant: when it goes on.
        public var nextAttemptAt: Timestamp?
        /// Set while it waits: for what.
        public var waitingFor: SagaWait?
        /// Set while it is not known what a call has done.
        public var doubt: SagaDoubt?
        /// Where its device is made: a Docker engine, a cloud account in a region, a pool.
        public var site = ""
        /// Some live replica can call that site.
        public var isSiteServed = false
        /// The commands that an operator may give it as it is, the least drastic first: resume, skip, compensate; more may come.
        public var nextActions: [String] = []

        public init() {}
    }

    /// What a saga waits for.
    public struct SagaWait: ProtobufMessage {
        /// BACK_OFF, SETTLE_TIME, BREAKER_OPEN, NO_PERMIT, JOB, SITE_UNSERVED, COMMAND; more may come.
        public var reason = ""
        /// Whom it waits for, e.g. a site, the user service or another saga; empty: nobody.
        public var dependency = ""
        /// Unset: nobody knows.
        public var until: Timestamp?

        public init() {}
    }

    /// What is not known about a step: an effect of calls that were not answered may exist, or may still appear.
    public struct SagaDoubt: ProtobufMessage {
        public var step = ""
        /// False: the intent is durable, and certainly nothing was sent.
        public var isSent = false
        /// "Not found" is believed from then on; unset: nobody knows yet.
        public var until: Timestamp?

        public init() {}
    }

    public struct SagaStep: ProtobufMessage {
        public var name = ""
        public var status: StepStatus = .unspecified
        /// Forward attempts so far.
        public var attempts: UInt32 = 0
        public var compensationAttempts: UInt32 = 0
        public var startedAt: Timestamp?
        public var finishedAt: Timestamp?
        /// Last error, for people, at most 1,000 characters; never holds a secret.
        public var error = ""

        public init() {}
    }

    public struct SagaFailure: ProtobufMessage {
        public var cause: FailureCause = .unspecified
        public var step = ""
        /// Stable, machine readable, e.g. PROVIDER_UNAVAILABLE.
        public var reason = ""
        /// For people.
        public var message = ""

        public init() {}
    }
}

extension V1.Saga: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__Saga>) {
        cloudphone__device__v1__saga__init(message)
    }

    init(_ message: Cloudphone__Device__V1__Saga) {
        self.sagaID = String(wire: message.saga_id)
        self.type = String(wire: message.type)
        self.status = V1.SagaStatus(wire: message.status.rawValue)
        self.stepIndex = message.step_index
        self.currentStep = String(wire: message.current_step)
        self.steps = [V1.SagaStep](wire: message.steps, message.n_steps)
        self.failure = message.failure.map { V1.SagaFailure($0.pointee) }
        self.deviceID = String(wire: message.device_id)
        self.userID = String(wire: message.user_id)
        self.createdAt = Timestamp(wire: message.created_at)
        self.updatedAt = Timestamp(wire: message.updated_at)
        self.deadline = Timestamp(wire: message.deadline)
        self.completedAt = Timestamp(wire: message.completed_at)
        self.lastSequence = message.last_sequence
        self.requestID = String(wire: message.request_id)
        self.batchID = String(wire: message.batch_id)
        self.isQuarantined = message.quarantined != 0
        self.nextAttemptAt = Timestamp(wire: message.next_attempt_at)
        self.waitingFor = message.waiting_for.map { V1.SagaWait($0.pointee) }
        self.doubt = message.doubt.map { V1.SagaDoubt($0.pointee) }
        self.site = String(wire: message.site)
        self.isSiteServed = message.is_site_served != 0
        self.nextActions = [String](wire: message.next_actions, message.n_next_actions)
    }

    func fill(_ message: inout Cloudphone__Device__V1__Saga, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        if !self.type.isEmpty { message.type = arena.string(self.type) }
        message.status = .init(rawValue: self.status.wire)
        message.step_index = self.stepIndex
        if !self.currentStep.isEmpty { message.current_step = arena.string(self.currentStep) }
        message.n_steps = self.steps.count
        message.steps = arena.messages(self.steps)
        message.failure = arena.optionalMessage(self.failure)
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        if !self.userID.isEmpty { message.user_id = arena.string(self.userID) }
        message.created_at = arena.timestamp(self.createdAt)
        message.updated_at = arena.timestamp(self.updatedAt)
        message.deadline = arena.timestamp(self.deadline)
        message.completed_at = arena.timestamp(self.completedAt)
        message.last_sequence = self.lastSequence
        if !self.requestID.isEmpty { message.request_id = arena.string(self.requestID) }
        if !self.batchID.isEmpty { message.batch_id = arena.string(self.batchID) }
        message.quarantined = self.isQuarantined ? 1 : 0
        message.next_attempt_at = arena.timestamp(self.nextAttemptAt)
        message.waiting_for = arena.optionalMessage(self.waitingFor)
        message.doubt = arena.optionalMessage(self.doubt)
        if !self.site.isEmpty { message.site = arena.string(self.site) }
        message.is_site_served = self.isSiteServed ? 1 : 0
        message.n_next_actions = self.nextActions.count
        message.next_actions = arena.strings(self.nextActions)
    }
}

extension V1.SagaWait: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__SagaWait>) {
        cloudphone__device__v1__saga_wait__init(message)
    }

    init(_ message: Cloudphone__Device__V1__SagaWait) {
        self.reason = String(wire: message.reason)
        self.dependency = String(wire: message.dependency)
        self.until = Timestamp(wire: message.until)
    }

    func fill(_ message: inout Cloudphone__Device__V1__SagaWait, _ arena: MessageArena) {
        if !self.reason.isEmpty { message.reason = arena.string(self.reason) }
        if !self.dependency.isEmpty { message.dependency = arena.string(self.dependency) }
        message.until = arena.timestamp(self.until)
    }
}

extension V1.SagaDoubt: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__SagaDoubt>) {
        cloudphone__device__v1__saga_doubt__init(message)
    }

    init(_ message: Cloudphone__Device__V1__SagaDoubt) {
        self.step = String(wire: message.step)
        self.isSent = message.is_sent != 0
        self.until = Timestamp(wire: message.until)
    }

    func fill(_ message: inout Cloudphone__Device__V1__SagaDoubt, _ arena: MessageArena) {
        if !self.step.isEmpty { message.step = arena.string(self.step) }
        message.is_sent = self.isSent ? 1 : 0
        message.until = arena.timestamp(self.until)
    }
}

extension V1.SagaStep: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__SagaStep>) {
        cloudphone__device__v1__saga_step__init(message)
    }

    init(_ message: Cloudphone__Device__V1__SagaStep) {
        self.name = String(wire: message.name)
        self.status = V1.StepStatus(wire: message.status.rawValue)
        self.attempts = message.attempts
        self.compensationAttempts = message.compensation_attempts
        self.startedAt = Timestamp(wire: message.started_at)
        self.finishedAt = Timestamp(wire: message.finished_at)
        self.error = String(wire: message.error)
    }

    func fill(_ message: inout Cloudphone__Device__V1__SagaStep, _ arena: MessageArena) {
        if !self.name.isEmpty { message.name = arena.string(self.name) }
        message.status = .init(rawValue: self.status.wire)
        message.attempts = self.attempts
        message.compensation_attempts = self.compensationAttempts
        message.started_at = arena.timestamp(self.startedAt)
        message.finished_at = arena.timestamp(self.finishedAt)
        if !self.error.isEmpty { message.error = arena.string(self.error) }
    }
}

extension V1.SagaFailure: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__SagaFailure>) {
        cloudphone__device__v1__saga_failure__init(message)
    }

    init(_ message: Cloudphone__Device__V1__SagaFailure) {
        self.cause = V1.FailureCause(wire: message.cause.rawValue)
        self.step = String(wire: message.step)
        self.reason = String(wire: message.reason)
        self.message = String(wire: message.message)
    }

    func fill(_ message: inout Cloudphone__Device__V1__SagaFailure, _ arena: MessageArena) {
        message.cause = .init(rawValue: self.cause.wire)
        if !self.step.isEmpty { message.step = arena.string(self.step) }
        if !self.reason.isEmpty { message.reason = arena.string(self.reason) }
        if !self.message.isEmpty { message.message = arena.string(self.message) }
    }
}
