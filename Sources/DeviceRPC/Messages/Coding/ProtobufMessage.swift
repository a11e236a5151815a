public import DeviceProvisioning
public import NIOCore
import Proto

/// A message of the contract as a Swift value. Conversions go through protobuf-c, after a validating pass.
public protocol ProtobufMessage: Sendable, Equatable {
    /// The empty message: every field at its default.
    init()

    /// Reads a message from its wire bytes.
    ///
    /// - Throws: `MessageDecodingError` for any bytes that are not such a message; gRPC's status is INTERNAL.
    init(decoding bytes: ByteBuffer, limits: DecodingLimits) throws(MessageDecodingError)

    /// Appends the wire bytes. Maps are written in the order of their keys.
    func encode(into buffer: inout ByteBuffer)

    /// The type's full name in the contract, e.g. `cloudphone.device.v1.Device`.
    static var fullName: String { get }

    /// Reads proto3 JSON; see `ProtoJSON`. The text must hold one message and nothing else.
    init(json: String) throws(ProtoJSONError)

    /// Reads one message of a larger document.
    init(json value: JSONValue) throws(ProtoJSONError)

    /// Writes proto3 JSON; see `ProtoJSON`.
    func json(_ options: ProtoJSON.WritingOptions) -> String
}

extension ProtobufMessage {
    /// Reads a message that a caller sent.
    public init(decoding bytes: ByteBuffer) throws(MessageDecodingError) {
        try self.init(decoding: bytes, limits: .request)
    }

    /// The wire bytes, after `headroom` bytes that the caller fills in later (e.g. the 5 bytes of a gRPC frame).
    public func encoded(headroom: Int = 0) -> ByteBuffer {
        var buffer = ByteBuffer()
        if headroom > 0 { buffer.writeRepeatingByte(0, count: headroom) }
        self.encode(into: &buffer)
        return buffer
    }

    /// proto3 JSON on one line.
    public func json() -> String { self.json(.compact) }

    /// A message made from the empty one.
    public static func with(_ fill: (inout Self) -> Void) -> Self {
        var message = Self()
        fill(&message)
        return message
    }
}

// MARK: - Conversion

/// A message whose C struct is known. Conforming types say field by field how the two translate; the rest is here.
protocol CConvertible: ProtobufMessage {
    associatedtype CMessage

    /// protobuf-c's own initialiser: sets the descriptor and the defaults.
    static func prepare(_ message: UnsafeMutablePointer<CMessage>)
    init(_ message: CMessage)
    /// Sets the fields of a prepared message.
    func fill(_ message: inout CMessage, _ arena: MessageArena)
}

extension CConvertible {
    /// The generated descriptor, a constant of the Proto module.
    static var descriptor: UnsafePointer<ProtobufCMessageDescriptor> {
        withUnsafeTemporaryAllocation(of: CMessage.self, capacity: 1) { memory in
            let message = memory.baseAddress.unsafelyUnwrapped  // capacity 1: never nil
            Self.prepare(message)
            // Every generated struct begins with a ProtobufCMessage, and the initialiser has just set it.
            return UnsafeRawPointer(message).load(as: ProtobufCMessage.self).descriptor
        }
    }

    public static var fullName: String { String(cString: Self.descriptor.pointee.name) }

    public init(decoding bytes: ByteBuffer, limits: DecodingLimits) throws(MessageDecodingError) {
        guard bytes.readableBytes > 0 else {
            self.init()
            return
        }
        let descriptor = Self.descriptor
        let result = bytes.withUnsafeReadableBytes { bytes -> Result<Self, MessageDecodingError> in
            Result { () throws(MessageDecodingError) in try Self.decode(bytes, descriptor, limits) }
        }
        self = try result.get()
    }

    private static func decode(
        _ bytes: UnsafeRawBufferPointer, _ descriptor: UnsafePointer<ProtobufCMessageDescriptor>,
        _ limits: DecodingLimits
    ) throws(MessageDecodingError) -> Self {
        try MessageArena.withValidated(bytes, as: descriptor, limits: limits) { message, _ in
            message.withMemoryRebound(to: CMessage.self, capacity: 1) { Self($0.pointee) }
        }
    }

    public func encode(into buffer: inout ByteBuffer) {
        MessageArena.withArena { arena in
            let message = arena.message(self)
            message.withMemoryRebound(to: ProtobufCMessage.self, capacity: 1) { buffer.writeMessage($0) }
        }
    }
}

extension ByteBuffer {
    /// Packs a message in place.
    mutating func writeMessage(_ message: UnsafePointer<ProtobufCMessage>) {
        let size = protobuf_c_message_get_packed_size(message)
        guard size > 0 else { return }
        self.writeWithUnsafeMutableBytes(minimumWritableBytes: size) { memory in
            protobuf_c_message_pack(message, memory.baseAddress?.assumingMemoryBound(to: UInt8.self))
        }
    }
}

extension MessageArena {
    /// Validates and unpacks `bytes`, and lends the C message to `body`.
    static func withValidated<Result>(
        _ bytes: UnsafeRawBufferPointer, as descriptor: UnsafePointer<ProtobufCMessageDescriptor>,
        limits: DecodingLimits, _ body: (UnsafeMutablePointer<ProtobufCMessage>, MessageArena) -> Result
    ) throws(MessageDecodingError) -> Result {
        var validator = WireValidator(limits: limits)
        try validator.validate(bytes, as: descriptor)
        let cap = limits.baseMemory + limits.memoryPerByte * bytes.count
        return try MessageArena.withArena(cap: cap) { (arena) throws(MessageDecodingError) -> Result in
            guard let message = arena.unpack(bytes, as: descriptor) else {
                throw MessageDecodingError(
                    reason: .tooMuchMemory, messageName: String(cString: descriptor.pointee.name), fieldName: nil)
            }
            return body(message, arena)
        }
    }

    /// The C message of a value.
    func message<Message: CConvertible>(_ value: Message) -> UnsafeMutablePointer<Message.CMessage> {
        let message = self.allocate(Message.CMessage.self)
        Message.prepare(message)
        value.fill(&message.pointee, self)
        return message
    }

    func optionalMessage<Message: CConvertible>(_ value: Message?) -> UnsafeMutablePointer<Message.CMessage>? {
        guard let value else { return nil }
        return self.message(value)
    }

    func messages<Message: CConvertible>(
        _ values: [Message]
    ) -> UnsafeMutablePointer<UnsafeMutablePointer<Message.CMessage>?>? {
        guard !values.isEmpty else { return nil }
        let result = self.allocate(UnsafeMutablePointer<Message.CMessage>?.self, count: values.count)
        for (index, value) in values.enumerated() { result[index] = self.message(value) }
        return result
    }

    /// The C array of a `repeated` enum field.
    func enumerations<Value: RawRepresentable<Int32>, CEnum: RawRepresentable<UInt32>>(
        _ values: [Value], as type: CEnum.Type
    ) -> UnsafeMutablePointer<CEnum>? {
        guard !values.isEmpty else { return nil }
        let result = self.allocate(UInt32.self, count: values.count)
        for (index, value) in values.enumerated() { result[index] = UInt32(bitPattern: value.rawValue) }
        return UnsafeMutableRawPointer(result).assumingMemoryBound(to: CEnum.self)  // a C enum is an unsigned int
    }

    /// The C entries of a `map<string, string>`, in the order of the keys.
    func entries<Entry: CMapEntry>(
        _ map: [String: String]
    ) -> UnsafeMutablePointer<UnsafeMutablePointer<Entry>?>? {
        guard !map.isEmpty else { return nil }
        let result = self.allocate(UnsafeMutablePointer<Entry>?.self, count: map.count)
        for (index, (key, value)) in map.sorted(by: { $0.key < $1.key }).enumerated() {
            let entry = self.allocate(Entry.self)
            Entry.prepare(entry)
            entry.pointee.key = self.string(key)
            entry.pointee.value = self.string(value)
            result[index] = entry
        }
        return result
    }
}

/// A generated entry of a `map<string, string>`.
protocol CMapEntry {
    static func prepare(_ entry: UnsafeMutablePointer<Self>)
    var key: UnsafeMutablePointer<CChar>! { get set }
    var value: UnsafeMutablePointer<CChar>! { get set }
}

// MARK: - Reading C fields

extension String {
    /// A string field. Validated bytes hold no NUL, so nothing is cut.
    init(wire text: UnsafeMutablePointer<CChar>?) {
        guard let text else {
            self = ""
            return
        }
        self.init(cString: text)
    }
}

extension Array {
    init(wire pointer: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, _ count: Int) where Element == String {
        self = (0..<count).compactMap { index in pointer?[index].map { String(wire: $0) } }
    }

    init(wire pointer: UnsafeMutablePointer<UnsafeMutablePointer<Element.CMessage>?>?, _ count: Int)
    where Element: CConvertible {
        self = (0..<count).compactMap { index in pointer?[index].map { Element($0.pointee) } }
    }

    init<CEnum: RawRepresentable<UInt32>>(wire pointer: UnsafeMutablePointer<CEnum>?, _ count: Int)
    where Element: RawRepresentable<Int32> {
        self = (0..<count).compactMap { index in
            pointer.flatMap { Element(rawValue: Int32(bitPattern: $0[index].rawValue)) }
        }
    }

    init(wire data: ProtobufCBinaryData) where Element == UInt8 {
        self = Array(UnsafeBufferPointer(start: data.data, count: data.data == nil ? 0 : data.len))
    }
}

extension [String: String] {
    /// A map field. Where a key comes twice, the last one wins (protobuf encoding guide, "Maps").
    init<Entry: CMapEntry>(wire pointer: UnsafeMutablePointer<UnsafeMutablePointer<Entry>?>?, _ count: Int) {
        self.init(minimumCapacity: count)
        for index in 0..<count {
            guard let entry = pointer?[index] else { continue }
            self[String(wire: entry.pointee.key)] = String(wire: entry.pointee.value)
        }
    }

    /// Whether different keys of the map are one to Swift (Unicode's canonical equivalence), so that an entry is lost.
    func hasFolded<Entry: CMapEntry>(
        wire pointer: UnsafeMutablePointer<UnsafeMutablePointer<Entry>?>?, _ count: Int
    ) -> Bool {
        guard self.count < count else { return false }
        let keys = (0..<count).compactMap { index in
            pointer?[index].map { Array(String(wire: $0.pointee.key).utf8) }
        }
        return Set(keys).count > self.count
    }
}
