import Proto

extension V1 {
    public struct ListPortsRequest: ProtobufMessage {
        /// Empty: every host.
        public var host = ""
        public var pageSize: UInt32 = 0
        public var pageToken = ""

        public init() {}
    }

    public struct ListPortsResponse: ProtobufMessage {
        public var ports: [AllocatedPort] = []
        public var nextPageToken = ""

        public init() {}
    }

    public struct AllocatedPort: ProtobufMessage {
        public var host = ""
        /// Adb, webrtc.
        public var kind = ""
        public var port: UInt32 = 0
        public var deviceID = ""
        public var sagaID = ""

        public init() {}
    }
}

extension V1.ListPortsRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__ListPortsRequest>) {
        cloudphone__device__v1__list_ports_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__ListPortsRequest) {
        self.host = String(wire: message.host)
        self.pageSize = message.page_size
        self.pageToken = String(wire: message.page_token)
    }

    func fill(_ message: inout Cloudphone__Device__V1__ListPortsRequest, _ arena: MessageArena) {
        if !self.host.isEmpty { message.host = arena.string(self.host) }
        message.page_size = self.pageSize
        if !self.pageToken.isEmpty { message.page_token = arena.string(self.pageToken) }
    }
}

extension V1.ListPortsResponse: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__ListPortsResponse>) {
        cloudphone__device__v1__list_ports_response__init(message)
    }

    init(_ message: Cloudphone__Device__V1__ListPortsResponse) {
        self.ports = [V1.AllocatedPort](wire: message.ports, message.n_ports)
        self.nextPageToken = String(wire: message.next_page_token)
    }

    func fill(_ message: inout Cloudphone__Device__V1__ListPortsResponse, _ arena: MessageArena) {
        message.n_ports = self.ports.count
        message.ports = arena.messages(self.ports)
        if !self.nextPageToken.isEmpty { message.next_page_token = arena.string(self.nextPageToken) }
    }
}

extension V1.AllocatedPort: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__AllocatedPort>) {
        cloudphone__device__v1__allocated_port__init(message)
    }

    init(_ message: Cloudphone__Device__V1__AllocatedPort) {
        self.host = String(wire: message.host)
        self.kind = String(wire: message.kind)
        self.port = message.port
        self.deviceID = String(wire: message.device_id)
        self.sagaID = String(wire: message.saga_id)
    }

    func fill(_ message: inout Cloudphone__Device__V1__AllocatedPort, _ arena: MessageArena) {
        if !self.host.isEmpty { message.host = arena.string(self.host) }
        if !self.kind.isEmpty { message.kind = arena.string(self.kind) }
        message.port = self.port
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
    }
}
