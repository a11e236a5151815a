package import RPCTransport

/// The request of UnaryCall.
package struct SimpleRequest: InteropMessage {
    package var responseSize: Int32 = 0
    package var payload: Payload?
    package var responseCompressed: Bool?
    package var responseStatus: EchoStatus?
    package var expectCompressed: Bool?

    package init() {}

    package mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        switch field {
        case 2: self.responseSize = try Self.int32(value)
        case 3: self.payload = try Payload(decoding: value)
        case 6: self.responseCompressed = try Self.flag(value)
        case 7: self.responseStatus = try EchoStatus(decoding: value)
        case 8: self.expectCompressed = try Self.flag(value)
        default: break
        }
    }

    package func write(into writer: inout ProtoWriter) {
        writer.int32(2, self.responseSize)
        writer.message(3, self.payload)
        writer.flag(6, self.responseCompressed)
        writer.message(7, self.responseStatus)
        writer.flag(8, self.expectCompressed)
    }
}
