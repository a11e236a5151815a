import Proto

extension V1 {
    public struct SagaStatus: ProtobufEnum {
        public static let unspecified = Self(rawValue: 0)
        /// Forward steps are executing.
        public static let running = Self(rawValue: 1)
        /// Terminal: every step succeeded.
        public static let completed = Self(rawValue: 2)
        /// Steps are being undone, newest first.
        public static let compensating = Self(rawValue: 3)
        /// Terminal: everything that was done is undone.
        public static let compensated = Self(rawValue: 4)
        /// Neither terminal nor moving: current_step needs an operator.
        public static let parked = Self(rawValue: 5)

        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let prefix = "SAGA_STATUS_"
        public static let known = values(of: cloudphone__device__v1__saga_status__descriptor)
    }

    public struct StepStatus: ProtobufEnum {
        public static let unspecified = Self(rawValue: 0)
        public static let pending = Self(rawValue: 1)
        /// Its intent is durable; the effect may or may not exist.
        public static let running = Self(rawValue: 2)
        public static let succeeded = Self(rawValue: 3)
        public static let failed = Self(rawValue: 4)
        public static let compensating = Self(rawValue: 5)
        public static let compensated = Self(rawValue: 6)
        public static let compensationFailed = Self(rawValue: 7)
        /// Nothing to do for this provider, or skipped by an operator.
        public static let skipped = Self(rawValue: 8)

        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let prefix = "STEP_STATUS_"
        public static let known = values(of: cloudphone__device__v1__step_status__descriptor)
    }

    public struct FailureCause: ProtobufEnum {
        public static let unspecified = Self(rawValue: 0)
        public static let stepFailed = Self(rawValue: 1)
        /// The saga's deadline passed.
        public static let timedOut = Self(rawValue: 2)
        /// CompensateSaga, or DeleteDevice while it was being created.
        public static let cancelled = Self(rawValue: 3)

        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let prefix = "FAILURE_CAUSE_"
        public static let known = values(of: cloudphone__device__v1__failure_cause__descriptor)
    }

    public struct SagaEventType: ProtobufEnum {
        public static let unspecified = Self(rawValue: 0)
        public static let sagaStarted = Self(rawValue: 1)
        public static let stepStarted = Self(rawValue: 2)
        public static let stepRetrying = Self(rawValue: 3)
        public static let stepSucceeded = Self(rawValue: 4)
        public static let stepFailed = Self(rawValue: 5)
        public static let sagaCompensating = Self(rawValue: 6)
        public static let stepCompensating = Self(rawValue: 7)
        public static let stepCompensated = Self(rawValue: 8)
        public static let stepCompensationFailed = Self(rawValue: 9)
        public static let sagaCompleted = Self(rawValue: 10)
        public static let sagaCompensated = Self(rawValue: 11)
        public static let sagaParked = Self(rawValue: 12)
        /// By an operator.
        public static let sagaResumed = Self(rawValue: 13)
        /// Another replica took it over; status and step unchanged.
        public static let sagaAdopted = Self(rawValue: 14)
        /// Nothing to do, or skipped by an operator.
        public static let stepSkipped = Self(rawValue: 15)
        /// The other side works on it: message says how far it is.
        public static let stepProgress = Self(rawValue: 16)
        /// An operator's command, or a deletion's, with who and why in message.
        public static let commandReceived = Self(rawValue: 17)

        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let prefix = "SAGA_EVENT_TYPE_"
        public static let known = values(of: cloudphone__device__v1__saga_event_type__descriptor)
    }
}
