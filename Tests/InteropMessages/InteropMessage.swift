package import NIOCore
package import RPCTransport

/// A message of `proto/interop.proto`, read and written by hand: there are few of them. Other implementations' clients
/// read what this writes.
package protocol InteropMessage: Sendable, Hashable {
    /// Takes a field in; an unknown one is left alone.
    mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError)

    /// Writes what differs from the default.
    func write(into writer: inout ProtoWriter)

    init()
}

extension InteropMessage {
    package init(decoding message: ByteBuffer) throws(RPCError) {
        try self.init(decoding: Array(message.readableBytesView)[...])
    }

    init(decoding bytes: ArraySlice<UInt8>) throws(RPCError) {
        self.init()
        var reader = ProtoReader(bytes)
        while let (field, value) = reader.next() { try self.read(field: field, value) }
        guard !reader.isMalformed else { throw Self.unreadable }
    }

    init(decoding value: ProtoReader.Value) throws(RPCError) {
        try self.init(decoding: try Self.bytes(value))
    }

    package var encoded: ByteBuffer {
        var writer = ProtoWriter()
        self.write(into: &writer)
        return ByteBuffer(bytes: writer.bytes)
    }

    static var unreadable: RPCError { RPCError(.internal, "cannot parse grpc.testing.\(Self.self)") }

    static func bytes(_ value: ProtoReader.Value) throws(RPCError) -> ArraySlice<UInt8> {
        guard case .bytes(let bytes) = value else { throw Self.unreadable }
        return bytes
    }

    static func text(_ value: ProtoReader.Value) throws(RPCError) -> String {
        guard let text = String(validating: try Self.bytes(value), as: UTF8.self) else { throw Self.unreadable }
        return text
    }

    static func int32(_ value: ProtoReader.Value) throws(RPCError) -> Int32 {
        guard case .varint(let number) = value else { throw Self.unreadable }
        return Int32(truncatingIfNeeded: number)
    }

    /// `grpc.testing.BoolValue`: a flag that may be absent.
    static func flag(_ value: ProtoReader.Value) throws(RPCError) -> Bool {
        try BoolValue(decoding: value).value
    }
}

extension ProtoWriter {
    mutating func int32(_ field: UInt32, _ value: Int32) {
        if value != 0 { self.varint(field, UInt64(bitPattern: Int64(value))) }
    }

    mutating func message(_ field: UInt32, _ value: (some InteropMessage)?) {
        guard let value else { return }
        self.message(field) { value.write(into: &$0) }
    }

    mutating func flag(_ field: UInt32, _ value: Bool?) { self.message(field, value.map { BoolValue($0) }) }
}

/// A flag that may be absent, as these messages have it.
private struct BoolValue: InteropMessage {
    var value = false

    init() {}

    init(_ value: Bool) { self.value = value }

    mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        if field == 1 { self.value = try Self.int32(value) != 0 }
    }

    func write(into writer: inout ProtoWriter) { writer.int32(1, self.value ? 1 : 0) }
}
