import Proto
public import SagaRuntime

extension V1 {
    public struct Device: ProtobufMessage {
        /// UUID, fixed before the first step runs.
        public var deviceID = ""
        public var name = ""
        public var description = ""
        public var type: DeviceType = .unspecified
        public var status: DeviceStatus = .unspecified
        public var provider: Provider = .unspecified
        public var userID = ""
        public var tenantID = ""
        public var spec: DeviceSpec?
        public var tags: [String] = []
        public var metadata: [String: String] = [:]
        /// The provider's own id; empty until known.
        public var externalID = ""
        public var connection: Connection?
        /// The saga that last changed this device.
        public var sagaID = ""
        public var createdAt: Timestamp?
        public var updatedAt: Timestamp?
        /// Where it is made; empty until known.
        public var site = ""
        /// CreateDeviceRequest's; empty for what older servers have made.
        public var batchID = ""
        /// The saga that holds it now; empty: none.
        public var operationSagaID = ""
        /// Why its status is what it is; usually empty.
        public var statusReason = ""

        public init() {}
    }

    /// Zero means the default in brackets.
    public struct DeviceSpec: ProtobufMessage {
        /// 1 to 16 [2]
        public var cpuCores: UInt32 = 0
        /// 512 to 32768 [4096]
        public var memoryMB: UInt32 = 0
        /// 1024 to 1048576 [10240]
        public var storageMB: UInt32 = 0
        /// 240 to 7680 [1920]
        public var widthPx: UInt32 = 0
        /// 240 to 7680 [1080]
        public var heightPx: UInt32 = 0
        /// 120 to 640 [240]
        public var dpi: UInt32 = 0
        /// E.g. 11, 12.0, 13; a version that the provider lacks is refused [11]
        public var androidVersion = ""

        public init() {}
    }

    /// How to reach a running device.
    public struct Connection: ProtobufMessage {
        public var host = ""
        public var adbPort: UInt32 = 0
        public var webrtcPort: UInt32 = 0
        /// What the provider adds; never a secret.
        public var attributes: [String: String] = [:]

        public init() {}
    }
}

extension V1.Device: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__Device>) {
        cloudphone__device__v1__device__init(message)
    }

    init(_ message: Cloudphone__Device__V1__Device) {
        self.deviceID = String(wire: message.device_id)
        self.name = String(wire: message.name)
        self.description = String(wire: message.description)
        self.type = V1.DeviceType(wire: message.type.rawValue)
        self.status = V1.DeviceStatus(wire: message.status.rawValue)
        self.provider = V1.Provider(wire: message.provider.rawValue)
        self.userID = String(wire: message.user_id)
        self.tenantID = String(wire: message.tenant_id)
        self.spec = message.spec.map { V1.DeviceSpec($0.pointee) }
        self.tags = [String](wire: message.tags, message.n_tags)
        self.metadata = [String: String](wire: message.metadata, message.n_metadata)
        self.externalID = String(wire: message.external_id)
        self.connection = message.connection.map { V1.Connection($0.pointee) }
        self.sagaID = String(wire: message.saga_id)
        self.createdAt = Timestamp(wire: message.created_at)
        self.updatedAt = Timestamp(wire: message.updated_at)
        self.site = String(wire: message.site)
        self.batchID = String(wire: message.batch_id)
        self.operationSagaID = String(wire: message.operation_saga_id)
        self.statusReason = String(wire: message.status_reason)
    }

    func fill(_ message: inout Cloudphone__Device__V1__Device, _ arena: MessageArena) {
        if !self.deviceID.isEmpty { message.device_id = arena.string(self.deviceID) }
        if !self.name.isEmpty { message.name = arena.string(self.name) }
        if !self.description.isEmpty { message.description = arena.string(self.description) }
        message.type = .init(rawValue: self.type.wire)
        message.status = .init(rawValue: self.status.wire)
        message.provider = .init(rawValue: self.provider.wire)
        if !self.userID.isEmpty { message.user_id = arena.string(self.userID) }
        if !self.tenantID.isEmpty { message.tenant_id = arena.string(self.tenantID) }
        message.spec = arena.optionalMessage(self.spec)
        message.n_tags = self.tags.count
        message.tags = arena.strings(self.tags)
        message.n_metadata = self.metadata.count
        message.metadata = arena.entries(self.metadata)
        if !self.externalID.isEmpty { message.external_id = arena.string(self.externalID) }
        message.connection = arena.optionalMessage(self.connection)
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        message.created_at = arena.timestamp(self.createdAt)
        message.updated_at = arena.timestamp(self.updatedAt)
        if !self.site.isEmpty { message.site = arena.string(self.site) }
        if !self.batchID.isEmpty { message.batch_id = arena.string(self.batchID) }
        if !self.operationSagaID.isEmpty { message.operation_saga_id = arena.string(self.operationSagaID) }
        if !self.statusReason.isEmpty { message.status_reason = arena.string(self.statusReason) }
    }
}

extension Cloudphone__Device__V1__Device__MetadataEntry: CMapEntry {
    static func prepare(_ entry: UnsafeMutablePointer<Self>) {
        cloudphone__device__v1__device__metadata_entry__init(entry)
    }
}

extension V1.DeviceSpec: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__DeviceSpec>) {
        cloudphone__device__v1__device_spec__init(message)
    }

    init(_ message: Cloudphone__Device__V1__DeviceSpec) {
        self.cpuCores = message.cpu_cores
        self.memoryMB = message.memory_mb
        self.storageMB = message.storage_mb
        self.widthPx = message.width_px
        self.heightPx = message.height_px
        self.dpi = message.dpi
        self.androidVersion = String(wire: message.android_version)
    }

    func fill(_ message: inout Cloudphone__Device__V1__DeviceSpec, _ arena: MessageArena) {
        message.cpu_cores = self.cpuCores
        message.memory_mb = self.memoryMB
        message.storage_mb = self.storageMB
        message.width_px = self.widthPx
        message.height_px = self.heightPx
        message.dpi = self.dpi
        if !self.androidVersion.isEmpty { message.android_version = arena.string(self.androidVersion) }
    }
}

extension V1.Connection: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__Connection>) {
        cloudphone__device__v1__connection__init(message)
    }

    init(_ message: Cloudphone__Device__V1__Connection) {
        self.host = String(wire: message.host)
        self.adbPort = message.adb_port
        self.webrtcPort = message.webrtc_port
        self.attributes = [String: String](wire: message.attributes, message.n_attributes)
    }

    func fill(_ message: inout Cloudphone__Device__V1__Connection, _ arena: MessageArena) {
        if !self.host.isEmpty { message.host = arena.string(self.host) }
        message.adb_port = self.adbPort
        message.webrtc_port = self.webrtcPort
        message.n_attributes = self.attributes.count
        message.attributes = arena.entries(self.attributes)
    }
}

extension Cloudphone__Device__V1__Connection__AttributesEntry: CMapEntry {
    static func prepare(_ entry: UnsafeMutablePointer<Self>) {
        cloudphone__device__v1__connection__attributes_entry__init(entry)
    }
}
