import Proto

extension V1 {
    public struct CreateDeviceRequest: ProtobufMessage {
        /// Per user, kept as long as the saga. Same id and request: the same saga and its outcome, also a failure.
        /// Compared after defaults are filled in, without return_when. Another request: ALREADY_EXISTS. Empty: a
        /// repeated call makes a second device. up to 64 printable ASCII characters; strongly recommended.
        public var requestID = ""
        /// 1 to 100 characters, trimmed.
        public var name = ""
        /// Up to 500 characters.
        public var description = ""
        public var type: DeviceType = .unspecified
        /// One that is not configured here: INVALID_ARGUMENT.
        public var provider: Provider = .unspecified
        /// The owner. Empty: the token's subject; without a token, required. Another's: services and saga.admin only,
        /// else PERMISSION_DENIED.
        public var userID = ""
        /// Likewise.
        public var tenantID = ""
        public var spec: DeviceSpec?
        /// Up to 10, each 1 to 50 characters.
        public var tags: [String] = []
        /// Up to 32 entries; keys 1 to 64, values up to 256 characters.
        public var metadata: [String: String] = [:]
        /// Limits as metadata's. Keys per provider are in docs/providers.md, others are refused. Values are never
        /// returned or logged, and are erased when the saga ends.
        public var providerOptions: [String: String] = [:]
        /// [PROVISIONED]
        public var returnWhen: ReturnWhen = .unspecified
        /// 1 s to 24 h [10 min]
        public var sagaTimeout: ProtobufDuration?
        /// The caller's own, up to 64 printable ASCII characters; the lists find by it.
        public var batchID = ""
        /// Everything that can be known before is checked, and nothing starts.
        public var validateOnly = false
        /// Map fields that came with keys which can't be told apart here; no part of the message.
        var foldedFields: [String] = []

        public init() {}
    }

    public struct CreateDeviceResponse: ProtobufMessage {
        public var sagaID = ""
        public var device: Device?

        public init() {}
    }

    public struct CreateDevicesResult: ProtobufMessage {
        /// Of the request on its stream, from 1.
        public var index: UInt32 = 0
        /// The request's, unless it is too long.
        public var requestID = ""
        /// Likewise.
        public var name = ""
        /// Empty: no saga is known to have started.
        public var sagaID = ""
        /// Unset if there is an error.
        public var device: Device?
        /// Unset: OK.
        public var error: GoogleRPC.Status?

        public init() {}
    }
}

extension V1.CreateDeviceRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__CreateDeviceRequest>) {
        cloudphone__device__v1__create_device_request__init(message)
    }

    init(_ message: Cloudphone__Device__V1__CreateDeviceRequest) {
        self.requestID = String(wire: message.request_id)
        self.name = String(wire: message.name)
        self.description = String(wire: message.description)
        self.type = V1.DeviceType(wire: message.type.rawValue)
        self.provider = V1.Provider(wire: message.provider.rawValue)
        self.userID = String(wire: message.user_id)
        self.tenantID = String(wire: message.tenant_id)
        self.spec = message.spec.map { V1.DeviceSpec($0.pointee) }
        self.tags = [String](wire: message.tags, message.n_tags)
        self.metadata = [String: String](wire: message.metadata, message.n_metadata)
        self.providerOptions = [String: String](wire: message.provider_options, message.n_provider_options)
        if self.metadata.hasFolded(wire: message.metadata, message.n_metadata) { self.foldedFields.append("metadata") }
        if self.providerOptions.hasFolded(wire: message.provider_options, message.n_provider_options) {
            self.foldedFields.append("provider_options")
        }
        self.returnWhen = V1.ReturnWhen(wire: message.return_when.rawValue)
        self.sagaTimeout = ProtobufDuration(wire: message.saga_timeout)
        self.batchID = String(wire: message.batch_id)
        self.validateOnly = message.validate_only != 0
    }

    func fill(_ message: inout Cloudphone__Device__V1__CreateDeviceRequest, _ arena: MessageArena) {
        if !self.requestID.isEmpty { message.request_id = arena.string(self.requestID) }
        if !self.name.isEmpty { message.name = arena.string(self.name) }
        if !self.description.isEmpty { message.description = arena.string(self.description) }
        message.type = .init(rawValue: self.type.wire)
        message.provider = .init(rawValue: self.provider.wire)
        if !self.userID.isEmpty { message.user_id = arena.string(self.userID) }
        if !self.tenantID.isEmpty { message.tenant_id = arena.string(self.tenantID) }
        message.spec = arena.optionalMessage(self.spec)
        message.n_tags = self.tags.count
        message.tags = arena.strings(self.tags)
        message.n_metadata = self.metadata.count
        message.metadata = arena.entries(self.metadata)
        message.n_provider_options = self.providerOptions.count
        message.provider_options = arena.entries(self.providerOptions)
        message.return_when = .init(rawValue: self.returnWhen.wire)
        message.saga_timeout = arena.duration(self.sagaTimeout)
        if !self.batchID.isEmpty { message.batch_id = arena.string(self.batchID) }
        message.validate_only = self.validateOnly ? 1 : 0
    }
}

extension Cloudphone__Device__V1__CreateDeviceRequest__MetadataEntry: CMapEntry {
    static func prepare(_ entry: UnsafeMutablePointer<Self>) {
        cloudphone__device__v1__create_device_request__metadata_entry__init(entry)
    }
}

extension Cloudphone__Device__V1__CreateDeviceRequest__ProviderOptionsEntry: CMapEntry {
    static func prepare(_ entry: UnsafeMutablePointer<Self>) {
        cloudphone__device__v1__create_device_request__provider_options_entry__init(entry)
    }
}

extension V1.CreateDeviceResponse: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__CreateDeviceResponse>) {
        cloudphone__device__v1__create_device_response__init(message)
    }

    init(_ message: Cloudphone__Device__V1__CreateDeviceResponse) {
        self.sagaID = String(wire: message.saga_id)
        self.device = message.device.map { V1.Device($0.pointee) }
    }

    func fill(_ message: inout Cloudphone__Device__V1__CreateDeviceResponse, _ arena: MessageArena) {
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        message.device = arena.optionalMessage(self.device)
    }
}

extension V1.CreateDevicesResult: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Cloudphone__Device__V1__CreateDevicesResult>) {
        cloudphone__device__v1__create_devices_result__init(message)
    }

    init(_ message: Cloudphone__Device__V1__CreateDevicesResult) {
        self.index = message.index
        self.requestID = String(wire: message.request_id)
        self.name = String(wire: message.name)
        self.sagaID = String(wire: message.saga_id)
        self.device = message.device.map { V1.Device($0.pointee) }
        self.error = message.error.map { GoogleRPC.Status($0.pointee) }
    }

    func fill(_ message: inout Cloudphone__Device__V1__CreateDevicesResult, _ arena: MessageArena) {
        message.index = self.index
        if !self.requestID.isEmpty { message.request_id = arena.string(self.requestID) }
        if !self.name.isEmpty { message.name = arena.string(self.name) }
        if !self.sagaID.isEmpty { message.saga_id = arena.string(self.sagaID) }
        message.device = arena.optionalMessage(self.device)
        message.error = arena.optionalMessage(self.error)
    }
}
