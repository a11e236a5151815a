package import RPCTransport

/// A request of StreamingInputCall.
package struct StreamingInputCallRequest: InteropMessage {
    package var payload: Payload?
    package var expectCompressed: Bool?

    package init() {}

    package init(payload: Payload, expectCompressed: Bool? = nil) {
        self.payload = payload
        self.expectCompressed = expectCompressed
    }

    package mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        switch field {
        case 1: self.payload = try Payload(decoding: value)
        case 2: self.expectCompressed = try Self.flag(value)
        default: break
        }
    }

    package func write(into writer: inout ProtoWriter) {
        writer.message(1, self.payload)
        writer.flag(2, self.expectCompressed)
    }
}
