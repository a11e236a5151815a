import Proto

/// What the requests have in common that do something with a device that is there.
public protocol DeviceOperationRequest: Sendable {
    var requestID: String { get set }
    var deviceID: String { get set }
    var returnWhen: V1.ReturnWhen { get set }
    var sagaTimeout: ProtobufDuration? { get set }
}

extension V1.DeleteDeviceRequest: DeviceOperationRequest {}

extension V1 {
    public struct StartDeviceRequest: ProtobufMessage, DeviceOperationRequest {
        /// As CreateDeviceRequest's.
        public var requestID = ""
        public var deviceID = ""
        /// [FINISHED]; PROVISIONED: INVALID_ARGUMENT.
        public var returnWhen: ReturnWhen = .unspecified
        /// 1 s to 24 h [10 min].
        public var sagaTimeout: ProtobufDuration?

        public init() {}
    }

    public struct StopDeviceRequest: ProtobufMessage, DeviceOperationRequest {
        /// As CreateDeviceRequest's.
        public var requestID = ""
        public var deviceID = ""
        /// [FINISHED]; PROVISIONED: INVALID_ARGUMENT.
        public var returnWhen: ReturnWhen = .unspecified
        /// 1 s to 24 h [10 min].
        public var sagaTimeout: ProtobufDuration?

        public init() {}
    }

    public struct RestartDeviceRequest: ProtobufMessage, DeviceOperationRequest {
        /// As CreateDeviceRequest's.
        public var requestID = ""
        public var deviceID = ""
        /// [FINISHED]; PROVISIONED: INVALID_ARGUMENT.
        public var returnWhen: ReturnWhen = .unspecified
        /// 1 s to 24 h [10 min].
        public var sagaTimeout: ProtobufDuration?

        public init() {}
    }

    public struct DeviceOperation: ProtobufMessage {
        public var sagaID = ""
        /// As it is then.
        public var device: Device?

        public init() {}
    }
}

extension V1.StartDeviceRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__StartDeviceRequest>) {
        cloudphone__device__v1__start_device_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__StartDeviceRequest) {
        self.requestID = String(wire: message.request_id)
        self.deviceID = String(wire: message.device_id)
        self.returnWhen = V1.ReturnWhen(wire: message.return_when.rawValue)
        self.sagaTimeout = ProtobufDuration(wire: message.saga_timeout)
    }

    func fill(_ message: inout Cloudphone__Device__V1__StartDeviceRequest, _ arena: MessageArena) {
        if !self.requestID.isEmpty { message.request_id = arena.string(self.requestID) }
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        message.return_when = .init(rawValue: self.returnWhen.wire)
        message.saga_timeout = arena.duration(self.sagaTimeout)
    }
}

extension V1.StopDeviceRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__StopDeviceRequest>) {
        cloudphone__device__v1__stop_device_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__StopDeviceRequest) {
        self.requestID = String(wire: message.request_id)
        self.deviceID = String(wire: message.device_id)
        self.returnWhen = V1.ReturnWhen(wire: message.return_when.rawValue)
        self.sagaTimeout = ProtobufDuration(wire: message.saga_timeout)
    }

    func fill(_ message: inout Cloudphone__Device__V1__StopDeviceRequest, _ arena: MessageArena) {
        if !self.requestID.isEmpty { message.request_id = arena.string(self.requestID) }
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        message.return_when = .init(rawValue: self.returnWhen.wire)
        message.saga_timeout = arena.duration(self.sagaTimeout)
    }
}

extension V1.RestartDeviceRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__RestartDeviceRequest>) {
        cloudphone__device__v1__restart_device_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__RestartDeviceRequest) {
        self.requestID = String(wire: message.request_id)
        self.deviceID = String(wire: message.device_id)
        self.returnWhen = V1.ReturnWhen(wire: message.return_when.rawValue)
        self.sagaTimeout = ProtobufDuration(wire: message.saga_timeout)
    }

    func fill(_ message: inout Cloudphone__Device__V1__RestartDeviceRequest, _ arena: MessageArena) {
        if !self.requestID.isEmpty { message.request_id = arena.string(self.requestID) }
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        message.return_when = .init(rawValue: self.returnWhen.wire)
        message.saga_timeout = arena.duration(self.sagaTimeout)
    }
}

extension V1.DeviceOperation: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__DeviceOperation>) {
        cloudphone__device__v1__device_operation__init(message)
    }

    init(_ message: Cloudphone__Device__V1__DeviceOperation) {
        self.sagaID = String(wire: message.saga_id)
        self.device = message.device.map { V1.Device($0.pointee) }
    }

    func fill(_ message: inout Cloudphone__Device__V1__DeviceOperation, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        message.device = arena.optionalMessage(self.device)
    }
}
