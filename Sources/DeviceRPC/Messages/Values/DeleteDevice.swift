import Proto

extension V1 {
    public struct DeleteDeviceRequest: ProtobufMessage {
        /// As CreateDeviceRequest's.
        public var requestID = ""
        public var deviceID = ""
        /// [FINISHED]; PROVISIONED: INVALID_ARGUMENT.
        public var returnWhen: ReturnWhen = .unspecified
        /// 1 s to 24 h [10 min].
        public var sagaTimeout: ProtobufDuration?

        public init() {}
    }

    public struct DeleteDeviceResponse: ProtobufMessage {
        public var sagaID = ""
        public var device: Device?

        public init() {}
    }
}

extension V1.DeleteDeviceRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__DeleteDeviceRequest>) {
        cloudphone__device__v1__delete_device_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__DeleteDeviceRequest) {
        self.requestID = String(wire: message.request_id)
        self.deviceID = String(wire: message.device_id)
        self.returnWhen = V1.ReturnWhen(wire: message.return_when.rawValue)
        self.sagaTimeout = ProtobufDuration(wire: message.saga_timeout)
    }

    func fill(_ message: inout Cloudphone__Device__V1__DeleteDeviceRequest, _ arena: MessageArena) {
        if !self.requestID.isEmpty { message.request_id = arena.string(self.requestID) }
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        message.return_when = .init(rawValue: self.returnWhen.wire)
        message.saga_timeout = arena.duration(self.sagaTimeout)
    }
}

extension V1.DeleteDeviceResponse: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__DeleteDeviceResponse>) {
        cloudphone__device__v1__delete_device_response__init(message)
    }

    init(_ message: Cloudphone__Device__V1__DeleteDeviceResponse) {
        self.sagaID = String(wire: message.saga_id)
        self.device = message.device.map { V1.Device($0.pointee) }
    }

    func fill(_ message: inout Cloudphone__Device__V1__DeleteDeviceResponse, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        message.device = arena.optionalMessage(self.device)
    }
}
