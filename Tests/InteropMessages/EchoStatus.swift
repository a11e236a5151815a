package import RPCTransport

/// The status that the server is to answer with.
package struct EchoStatus: InteropMessage {
    package var code: Int32 = 0
    package var message = ""

    package init() {}

    package init(code: Int32, message: String) {
        self.code = code
        self.message = message
    }

    package mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        switch field {
        case 1: self.code = try Self.int32(value)
        case 2: self.message = try Self.text(value)
        default: break
        }
    }

    package func write(into writer: inout ProtoWriter) {
        writer.int32(1, self.code)
        writer.string(2, self.message)
    }
}
