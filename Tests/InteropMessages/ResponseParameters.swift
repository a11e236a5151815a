package import RPCTransport

/// One response that StreamingOutputCall, FullDuplexCall or HalfDuplexCall is asked for.
package struct ResponseParameters: InteropMessage {
    package var size: Int32 = 0
    package var intervalMicroseconds: Int32 = 0
    package var compressed: Bool?

    package init() {}

    package init(size: Int32, intervalMicroseconds: Int32 = 0, compressed: Bool? = nil) {
        self.size = size
        self.intervalMicroseconds = intervalMicroseconds
        self.compressed = compressed
    }

    package mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        switch field {
        case 1: self.size = try Self.int32(value)
        case 2: self.intervalMicroseconds = try Self.int32(value)
        case 3: self.compressed = try Self.flag(value)
        default: break
        }
    }

    package func write(into writer: inout ProtoWriter) {
        writer.int32(1, self.size)
        writer.int32(2, self.intervalMicroseconds)
        writer.flag(3, self.compressed)
    }
}
