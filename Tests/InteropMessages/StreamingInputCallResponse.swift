package import RPCTransport

/// The answer of StreamingInputCall.
package struct StreamingInputCallResponse: InteropMessage {
    package var aggregatedPayloadSize: Int32 = 0

    package init() {}

    package init(aggregatedPayloadSize: Int32) { self.aggregatedPayloadSize = aggregatedPayloadSize }

    package mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        if field == 1 { self.aggregatedPayloadSize = try Self.int32(value) }
    }

    package func write(into writer: inout ProtoWriter) { writer.int32(1, self.aggregatedPayloadSize) }
}
