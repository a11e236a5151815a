import Proto

extension V1 {
    public struct BatchGetDevicesRequest: ProtobufMessage {
        /// Up to 1000.
        public var deviceIDs: [String] = []

        public init() {}
    }

    public struct BatchGetDevicesResponse: ProtobufMessage {
        /// The known ones, in the order asked, once each.
        public var devices: [Device] = []
        public var missingDeviceIDs: [String] = []

        public init() {}
    }
}

extension V1.BatchGetDevicesRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__BatchGetDevicesRequest>) {
        cloudphone__device__v1__batch_get_devices_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__BatchGetDevicesRequest) {
        self.deviceIDs = [String](wire: message.device_ids, message.n_device_ids)
    }

    func fill(_ message: inout Cloudphone__Device__V1__BatchGetDevicesRequest, _ arena: MessageArena) {
        message.n_device_ids = self.deviceIDs.count
        message.device_ids = arena.strings(self.deviceIDs)
    }
}

extension V1.BatchGetDevicesResponse: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__BatchGetDevicesResponse>) {
        cloudphone__device__v1__batch_get_devices_response__init(message)
    }

    init(_ message: Cloudphone__Device__V1__BatchGetDevicesResponse) {
        self.devices = [V1.Device](wire: message.devices, message.n_devices)
        self.missingDeviceIDs = [String](wire: message.missing_device_ids, message.n_missing_device_ids)
    }

    func fill(_ message: inout Cloudphone__Device__V1__BatchGetDevicesResponse, _ arena: MessageArena) {
        message.n_devices = self.devices.count
        message.devices = arena.messages(self.devices)
        message.n_missing_device_ids = self.missingDeviceIDs.count
        message.missing_device_ids = arena.strings(self.missingDeviceIDs)
    }
}
