package import RPCTransport

/// A block of data, to make a message larger.
package struct Payload: InteropMessage {
    package var body: [UInt8] = []

    package init() {}

    package init(zeros count: Int) { self.body = Array(repeating: 0, count: count) }

    package mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        if field == 2 { self.body = Array(try Self.bytes(value)) }
    }

    package func write(into writer: inout ProtoWriter) {
        if !self.body.isEmpty { writer.bytes(2, self.body) }
    }
}
