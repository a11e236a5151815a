import Proto

extension V1 {
    public struct CompensateSagaRequest: ProtobufMessage {
        public var sagaID = ""
        /// Kept in the saga's events.
        public var reason = ""

        public init() {}
    }

    public struct ResumeSagaRequest: ProtobufMessage {
        public var sagaID = ""
        /// Current_step was done, or undone, by hand, and is marked SKIPPED. Only for an undo that failed, and for a pivot or retriable
        /// step that parked.
        public var skipStep = false
        public var reason = ""

        public init() {}
    }
}

extension V1.CompensateSagaRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__CompensateSagaRequest>) {
        cloudphone__device__v1__compensate_saga_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__CompensateSagaRequest) {
        self.sagaID = String(wire: message.saga_id)
        self.reason = String(wire: message.reason)
    }

    func fill(_ message: inout Cloudphone__Device__V1__CompensateSagaRequest, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        if !self.reason.isEmpty { message.reason = arena.string(self.reason) }
    }
}

extension V1.ResumeSagaRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__ResumeSagaRequest>) {
        cloudphone__device__v1__resume_saga_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__ResumeSagaRequest) {
        self.sagaID = String(wire: message.saga_id)
        self.skipStep = message.skip_step != 0
        self.reason = String(wire: message.reason)
    }

    func fill(_ message: inout Cloudphone__Device__V1__ResumeSagaRequest, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        message.skip_step = self.skipStep ? 1 : 0
        if !self.reason.isEmpty { message.reason = arena.string(self.reason) }
    }
}
