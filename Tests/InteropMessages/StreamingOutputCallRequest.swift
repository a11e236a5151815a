package import RPCTransport

/// A request of StreamingOutputCall, FullDuplexCall and HalfDuplexCall.
package struct StreamingOutputCallRequest: InteropMessage {
    package var responseParameters: [ResponseParameters] = []
    package var payload: Payload?
    package var responseStatus: EchoStatus?

    package init() {}

    package init(responseParameters: [ResponseParameters], payload: Payload? = nil) {
        self.responseParameters = responseParameters
        self.payload = payload
    }

    package mutating func read(field: UInt32, _ value: ProtoReader.Value) throws(RPCError) {
        switch field {
        case 2: self.responseParameters.append(try ResponseParameters(decoding: value))
        case 3: self.payload = try Payload(decoding: value)
        case 7: self.responseStatus = try EchoStatus(decoding: value)
        default: break
        }
    }

    package func write(into writer: inout ProtoWriter) {
        for parameters in self.responseParameters { writer.message(2, parameters) }
        writer.message(3, self.payload)
        writer.message(7, self.responseStatus)
    }
}
