import Proto

extension V1 {
    public struct WatchSagaRequest: ProtobufMessage {
        public var sagaID = ""
        /// 0: from the beginning.
        public var afterSequence: UInt32 = 0

        public init() {}
    }
}

extension V1.WatchSagaRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__WatchSagaRequest>) {
        cloudphone__device__v1__watch_saga_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__WatchSagaRequest) {
        self.sagaID = String(wire: message.saga_id)
        self.afterSequence = message.after_sequence
    }

    func fill(_ message: inout Cloudphone__Device__V1__WatchSagaRequest, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        message.after_sequence = self.afterSequence
    }
}
