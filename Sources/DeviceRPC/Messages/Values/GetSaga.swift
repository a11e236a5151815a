import Proto

extension V1 {
    public struct GetSagaRequest: ProtobufMessage {
        public var sagaID = ""

        public init() {}
    }

    public struct BatchGetSagasRequest: ProtobufMessage {
        /// Up to 1000.
        public var sagaIDs: [String] = []

        public init() {}
    }

    public struct BatchGetSagasResponse: ProtobufMessage {
        /// The known ones, in the order asked, once each.
        public var sagas: [Saga] = []
        public var missingSagaIDs: [String] = []

        public init() {}
    }
}

extension V1.GetSagaRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__GetSagaRequest>) {
        cloudphone__device__v1__get_saga_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__GetSagaRequest) {
        self.sagaID = String(wire: message.saga_id)
    }

    func fill(_ message: inout Cloudphone__Device__V1__GetSagaRequest, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
    }
}

extension V1.BatchGetSagasRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__BatchGetSagasRequest>) {
        cloudphone__device__v1__batch_get_sagas_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__BatchGetSagasRequest) {
        self.sagaIDs = [String](wire: message.saga_ids, message.n_saga_ids)
    }

    func fill(_ message: inout Cloudphone__Device__V1__BatchGetSagasRequest, _ arena: MessageArena) {
        message.n_saga_ids = self.sagaIDs.count
        message.saga_ids = arena.strings(self.sagaIDs)
    }
}

extension V1.BatchGetSagasResponse: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__BatchGetSagasResponse>) {
        cloudphone__device__v1__batch_get_sagas_response__init(message)
    }

    init(_ message: Cloudphone__Device__V1__BatchGetSagasResponse) {
        self.sagas = [V1.Saga](wire: message.sagas, message.n_sagas)
        self.missingSagaIDs = [String](wire: message.missing_saga_ids, message.n_missing_saga_ids)
    }

    func fill(_ message: inout Cloudphone__Device__V1__BatchGetSagasResponse, _ arena: MessageArena) {
        message.n_sagas = self.sagas.count
        message.sagas = arena.messages(self.sagas)
        message.n_missing_saga_ids = self.missingSagaIDs.count
        message.missing_saga_ids = arena.strings(self.missingSagaIDs)
    }
}
