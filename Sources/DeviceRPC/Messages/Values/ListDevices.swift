import Proto

extension V1 {
    public struct ListDevicesRequest: ProtobufMessage {
        /// Empty: every user that the caller may see.
        public var userID = ""
        public var statuses: [DeviceStatus] = []
        public var provider: Provider = .unspecified
        /// Up to 1000 [100]; a page also ends at 1 MiB. A token belongs to its filters.
        public var pageSize: UInt32 = 0
        public var pageToken = ""
        public var batchID = ""
        /// Up to 100 characters, compared byte by byte.
        public var namePrefix = ""
        /// A whole one, up to 50 characters.
        public var tag = ""

        public init() {}
    }

    public struct ListDevicesResponse: ProtobufMessage {
        public var devices: [Device] = []
        /// Empty on the last page.
        public var nextPageToken = ""

        public init() {}
    }
}

extension V1.ListDevicesRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__ListDevicesRequest>) {
        cloudphone__device__v1__list_devices_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__ListDevicesRequest) {
        self.userID = String(wire: message.user_id)
        self.statuses = [V1.DeviceStatus](wire: message.statuses, message.n_statuses)
        self.provider = V1.Provider(wire: message.provider.rawValue)
        self.pageSize = message.page_size
        self.pageToken = String(wire: message.page_token)
        self.batchID = String(wire: message.batch_id)
        self.namePrefix = String(wire: message.name_prefix)
        self.tag = String(wire: message.tag)
    }

    func fill(_ message: inout Cloudphone__Device__V1__ListDevicesRequest, _ arena: MessageArena) {
        if !self.userID.isEmpty { message.user_id = arena.string(self.userID) }
        message.n_statuses = self.statuses.count
        message.statuses = arena.enumerations(self.statuses, as: Cloudphone__Device__V1__DeviceStatus.self)
        message.provider = .init(rawValue: self.provider.wire)
        message.page_size = self.pageSize
        if !self.pageToken.isEmpty { message.page_token = arena.string(self.pageToken) }
        if !self.batchID.isEmpty { message.batch_id = arena.string(self.batchID) }
        if !self.namePrefix.isEmpty { message.name_prefix = arena.string(self.namePrefix) }
        if !self.tag.isEmpty { message.tag = arena.string(self.tag) }
    }
}

extension V1.ListDevicesResponse: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__ListDevicesResponse>) {
        cloudphone__device__v1__list_devices_response__init(message)
    }

    init(_ message: Cloudphone__Device__V1__ListDevicesResponse) {
        self.devices = [V1.Device](wire: message.devices, message.n_devices)
        self.nextPageToken = String(wire: message.next_page_token)
    }

    func fill(_ message: inout Cloudphone__Device__V1__ListDevicesResponse, _ arena: MessageArena) {
        message.n_devices = self.devices.count
        message.devices = arena.messages(self.devices)
        if !self.nextPageToken.isEmpty { message.next_page_token = arena.string(self.nextPageToken) }
    }
}
