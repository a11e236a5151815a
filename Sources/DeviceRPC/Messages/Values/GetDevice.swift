import Proto

extension V1 {
    public struct GetDeviceRequest: ProtobufMessage {
        public var deviceID = ""

        public init() {}
    }
}

extension V1.GetDeviceRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__GetDeviceRequest>) {
        cloudphone__device__v1__get_device_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__GetDeviceRequest) {
        self.deviceID = String(wire: message.device_id)
    }

    func fill(_ message: inout Cloudphone__Device__V1__GetDeviceRequest, _ arena: MessageArena) {
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
    }
}
