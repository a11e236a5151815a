import NIOCore
import Proto

/// The messages of `google.rpc` that the service sends in the trailer `grpc-status-details-bin`.
public enum GoogleRPC {
    /// `code` and `message` equal `grpc-status` and `grpc-message`.
    public struct Status: ProtobufMessage {
        public var code: Int32 = 0
        public var message = ""
        public var details: [PackedMessage] = []

        public init() {}

        /// The first detail of the type `Detail` that can be read.
        public func detail<Detail: ProtobufMessage>(_: Detail.Type = Detail.self) -> Detail? {
            for packed in self.details {
                if let detail = packed.unpacked(as: Detail.self) { return detail }
            }
            return nil
        }
    }

    public struct ErrorInfo: ProtobufMessage {
        public var reason = ""
        public var domain = ""
        public var metadata: [String: String] = [:]

        public init() {}
    }

    public struct RetryInfo: ProtobufMessage {
        public var retryDelay: ProtobufDuration?

        public init() {}
    }

    public struct BadRequest: ProtobufMessage {
        public var fieldViolations: [FieldViolation] = []

        public init() {}
    }

    /// `google.rpc.BadRequest.FieldViolation`.
    public struct FieldViolation: ProtobufMessage, Hashable, CustomStringConvertible {
        /// The field's path in the request: `spec.cpu_cores`, `tags[3]`, `metadata.key`.
        public var field = ""
        /// What is allowed there; `description` in the message.
        public var explanation = ""

        public init() {}
        public init(field: String, explanation: String) {
            self.field = field
            self.explanation = explanation
        }

        public var description: String { "\(self.field): \(self.explanation)" }
    }

    public struct ResourceInfo: ProtobufMessage {
        public var resourceType = ""
        public var resourceName = ""
        public var owner = ""
        public var description = ""

        public init() {}
    }
}

/// A `google.protobuf.Any`.
public struct PackedMessage: ProtobufMessage {
    /// `type.googleapis.com/` and the message's full name.
    public var typeURL = ""
    public var value: [UInt8] = []

    public init() {}

    public init(packing message: some ProtobufMessage) {
        self.typeURL = "type.googleapis.com/" + type(of: message).fullName
        self.value = Array(message.encoded().readableBytesView)
    }

    public func unpacked<Message: ProtobufMessage>(as type: Message.Type = Message.self) -> Message? {
        guard self.typeURL.split(separator: "/").last.map(String.init) == Message.fullName else { return nil }
        return try? Message(decoding: ByteBuffer(bytes: self.value), limits: .response)
    }
}

extension PackedMessage: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Google__Protobuf__Any>) {
        google__protobuf__any__init(message)
    }

    init(_ message: Google__Protobuf__Any) {
        self.typeURL = String(wire: message.type_url)
        self.value = [UInt8](wire: message.value)
    }

    func fill(_ message: inout Google__Protobuf__Any, _ arena: MessageArena) {
        if !self.typeURL.isEmpty { message.type_url = arena.string(self.typeURL) }
        message.value = arena.bytes(self.value)
    }
}

extension GoogleRPC.Status: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Google__Rpc__Status>) { google__rpc__status__init(message) }

    init(_ message: Google__Rpc__Status) {
        self.code = message.code
        self.message = String(wire: message.message)
        self.details = [PackedMessage](wire: message.details, message.n_details)
    }

    func fill(_ message: inout Google__Rpc__Status, _ arena: MessageArena) {
        message.code = self.code
        if !self.message.isEmpty { message.message = arena.string(self.message) }
        message.n_details = self.details.count
        message.details = arena.messages(self.details)
    }
}

extension GoogleRPC.ErrorInfo: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Google__Rpc__ErrorInfo>) {
        google__rpc__error_info__init(message)
    }

    init(_ message: Google__Rpc__ErrorInfo) {
        self.reason = String(wire: message.reason)
        self.domain = String(wire: message.domain)
        self.metadata = [String: String](wire: message.metadata, message.n_metadata)
    }

    func fill(_ message: inout Google__Rpc__ErrorInfo, _ arena: MessageArena) {
        if !self.reason.isEmpty { message.reason = arena.string(self.reason) }
        if !self.domain.isEmpty { message.domain = arena.string(self.domain) }
        message.n_metadata = self.metadata.count
        message.metadata = arena.entries(self.metadata)
    }
}

extension Google__Rpc__ErrorInfo__MetadataEntry: CMapEntry {
    static func prepare(_ entry: UnsafeMutablePointer<Self>) { google__rpc__error_info__metadata_entry__init(entry) }
}

extension GoogleRPC.RetryInfo: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Google__Rpc__RetryInfo>) {
        google__rpc__retry_info__init(message)
    }

    init(_ message: Google__Rpc__RetryInfo) {
        self.retryDelay = ProtobufDuration(wire: message.retry_delay)
    }

    func fill(_ message: inout Google__Rpc__RetryInfo, _ arena: MessageArena) {
        message.retry_delay = arena.duration(self.retryDelay)
    }
}

extension GoogleRPC.BadRequest: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Google__Rpc__BadRequest>) {
        google__rpc__bad_request__init(message)
    }

    init(_ message: Google__Rpc__BadRequest) {
        self.fieldViolations = [GoogleRPC.FieldViolation](wire: message.field_violations, message.n_field_violations)
    }

    func fill(_ message: inout Google__Rpc__BadRequest, _ arena: MessageArena) {
        message.n_field_violations = self.fieldViolations.count
        message.field_violations = arena.messages(self.fieldViolations)
    }
}

extension GoogleRPC.FieldViolation: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Google__Rpc__BadRequest__FieldViolation>) {
        google__rpc__bad_request__field_violation__init(message)
    }

    init(_ message: Google__Rpc__BadRequest__FieldViolation) {
        self.field = String(wire: message.field)
        self.explanation = String(wire: message.description)
    }

    func fill(_ message: inout Google__Rpc__BadRequest__FieldViolation, _ arena: MessageArena) {
        if !self.field.isEmpty { message.field = arena.string(self.field) }
        if !self.explanation.isEmpty { message.description = arena.string(self.explanation) }
    }
}

extension GoogleRPC.ResourceInfo: CConvertible {
    static func prepare(_ message: UnsafeMutablePointer<Google__Rpc__ResourceInfo>) {
        google__rpc__resource_info__init(message)
    }

    init(_ message: Google__Rpc__ResourceInfo) {
        self.resourceType = String(wire: message.resource_type)
        self.resourceName = String(wire: message.resource_name)
        self.owner = String(wire: message.owner)
        self.description = String(wire: message.description)
    }

    func fill(_ message: inout Google__Rpc__ResourceInfo, _ arena: MessageArena) {
        if !self.resourceType.isEmpty { message.resource_type = arena.string(self.resourceType) }
        if !self.resourceName.isEmpty { message.resource_name = arena.string(self.resourceName) }
        if !self.owner.isEmpty { message.owner = arena.string(self.owner) }
        if !self.description.isEmpty { message.description = arena.string(self.description) }
    }
}
