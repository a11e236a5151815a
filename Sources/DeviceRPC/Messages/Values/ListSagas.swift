import Proto

extension V1 {
    public struct ListSagasRequest: ProtobufMessage {
        public var statuses: [SagaStatus] = []
        public var type = ""
        public var userID = ""
        /// As ListDevicesRequest's.
        public var pageSize: UInt32 = 0
        public var pageToken = ""
        public var deviceID = ""
        public var batchID = ""
        /// Each user's own: others may have sagas of the same.
        public var requestID = ""

        public init() {}
    }

    public struct ListSagasResponse: ProtobufMessage {
        public var sagas: [Saga] = []
        public var nextPageToken = ""

        public init() {}
    }
}

extension V1.ListSagasRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__ListSagasRequest>) {
        cloudphone__device__v1__list_sagas_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__ListSagasRequest) {
        self.statuses = [V1.SagaStatus](wire: message.statuses, message.n_statuses)
        self.type = String(wire: message.type)
        self.userID = String(wire: message.user_id)
        self.pageSize = message.page_size
        self.pageToken = String(wire: message.page_token)
        self.deviceID = String(wire: message.device_id)
        self.batchID = String(wire: message.batch_id)
        self.requestID = String(wire: message.request_id)
    }

    func fill(_ message: inout Cloudphone__Device__V1__ListSagasRequest, _ arena: MessageArena) {
        message.n_statuses = self.statuses.count
        message.statuses = arena.enumerations(self.statuses, as: Cloudphone__Device__V1__SagaStatus.self)
        if !self.type.isEmpty { message.type = arena.string(self.type) }
        if !self.userID.isEmpty { message.user_id = arena.string(self.userID) }
        message.page_size = self.pageSize
        if !self.pageToken.isEmpty { message.page_token = arena.string(self.pageToken) }
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        if !self.batchID.isEmpty { message.batch_id = arena.string(self.batchID) }
        if !self.requestID.isEmpty { message.request_id = arena.string(self.requestID) }
    }
}

extension V1.ListSagasResponse: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__ListSagasResponse>) {
        cloudphone__device__v1__list_sagas_response__init(message)
    }

    init(_ message: Cloudphone__Device__V1__ListSagasResponse) {
        self.sagas = [V1.Saga](wire: message.sagas, message.n_sagas)
        self.nextPageToken = String(wire: message.next_page_token)
    }

    func fill(_ message: inout Cloudphone__Device__V1__ListSagasResponse, _ arena: MessageArena) {
        message.n_sagas = self.sagas.count
        message.sagas = arena.messages(self.sagas)
        if !self.nextPageToken.isEmpty { message.next_page_token = arena.string(self.nextPageToken) }
    }
}
