import InteropMessages
import NIOCore
import RPCTransport

/// What TestService sends back of a call's metadata: `x-grpc-test-echo-initial` ahead of the first message,
/// `x-grpc-test-echo-trailing-bin` with the status.
struct EchoedMetadata {
    private static let initialName = "x-grpc-test-echo-initial"
    private static let trailingName = "x-grpc-test-echo-trailing-bin"

    private var initial = Metadata()
    private var trailing = Metadata()

    init(_ context: RPCContext) {
        for value in context.metadata.all(Self.initialName) { self.initial.append(Self.initialName, value) }
        for value in context.metadata.allBinary(Self.trailingName) {
            self.trailing.append(Self.trailingName, binary: value)
        }
    }

    func reply(_ message: ByteBuffer) -> RPCReply {
        RPCReply(message: message, initialMetadata: self.initial, trailingMetadata: self.trailing)
    }

    /// A stream that echoes nothing begins with its first message, or ends with Trailers-Only.
    func begin(_ writer: RPCWriter) throws(RPCError) {
        writer.setTrailingMetadata(self.trailing)
        if !self.initial.isEmpty { try writer.sendHeaders(self.initial) }
    }

    /// Ends the call with the status that the client asked for, unless that is OK.
    func throwStatus(_ status: EchoStatus?) throws(RPCError) {
        guard let status, status.code != 0 else { return }
        throw RPCError(RPCCode(rawValue: Int(status.code)) ?? .unknown, status.message, metadata: self.trailing)
    }
}
