import Proto

extension V1 {
    public struct WatchSagasRequest: ProtobufMessage {
        public var batchID = ""
        public var userID = ""
        public var deviceID = ""
        /// Up to 1000; unknown ones are none that match.
        public var sagaIDs: [String] = []
        /// Which sagas are taken up; one that was is followed to its end. Empty: all.
        public var statuses: [SagaStatus] = []
        /// Ends with OK once at least one has matched and none of them moves any more.
        public var endWhenDone = false

        public init() {}
    }

    /// One of its fields is set.
    public struct WatchSagasResponse: ProtobufMessage {
        /// As it is when it is taken up.
        public var saga: Saga?
        public var event: SagaEvent?
        /// Every saga that matched at the beginning has been sent; once.
        public var synced: Synced?

        public init() {}
    }

    public struct Synced: ProtobufMessage {
        public init() {}
    }
}

extension V1.WatchSagasRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__WatchSagasRequest>) {
        cloudphone__device__v1__watch_sagas_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__WatchSagasRequest) {
        self.batchID = String(wire: message.batch_id)
        self.userID = String(wire: message.user_id)
        self.deviceID = String(wire: message.device_id)
        self.sagaIDs = [String](wire: message.saga_ids, message.n_saga_ids)
        self.statuses = [V1.SagaStatus](wire: message.statuses, message.n_statuses)
        self.endWhenDone = message.end_when_done != 0
    }

    func fill(_ message: inout Cloudphone__Device__V1__WatchSagasRequest, _ arena: MessageArena) {
        if !self.batchID.isEmpty { message.batch_id = arena.string(self.batchID) }
        if !self.userID.isEmpty { message.user_id = arena.string(self.userID) }
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        message.n_saga_ids = self.sagaIDs.count
        message.saga_ids = arena.strings(self.sagaIDs)
        message.n_statuses = self.statuses.count
        message.statuses = arena.enumerations(self.statuses, as: Cloudphone__Device__V1__SagaStatus.self)
        message.end_when_done = self.endWhenDone ? 1 : 0
    }
}

extension V1.WatchSagasResponse: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__WatchSagasResponse>) {
        cloudphone__device__v1__watch_sagas_response__init(message)
    }

    init(_ message: Cloudphone__Device__V1__WatchSagasResponse) {
        self.saga = message.saga.map { V1.Saga($0.pointee) }
        self.event = message.event.map { V1.SagaEvent($0.pointee) }
        self.synced = message.synced.map { V1.Synced($0.pointee) }
    }

    func fill(_ message: inout Cloudphone__Device__V1__WatchSagasResponse, _ arena: MessageArena) {
        message.saga = arena.optionalMessage(self.saga)
        message.event = arena.optionalMessage(self.event)
        message.synced = arena.optionalMessage(self.synced)
    }
}

extension V1.Synced: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__Synced>) {
        cloudphone__device__v1__synced__init(message)
    }

    init(_: Cloudphone__Device__V1__Synced) { self.init() }

    func fill(_: inout Cloudphone__Device__V1__Synced, _: MessageArena) {}
}
