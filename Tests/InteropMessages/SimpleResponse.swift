package import RPCTransport

/// The answer of UnaryCall.
package struct SimpleResponse: InteropMessage {
    package var payload: Payload?

    package init() {}

    package init(payload: Payload) { self.payload = payload }

    package mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        if field == 1 { self.payload = try Payload(decoding: value) }
    }

    package func write(into writer: inout ProtoWriter) { writer.message(1, self.payload) }
}
