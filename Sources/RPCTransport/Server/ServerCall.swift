import NIOCore

/// A call on its stream.
///
/// `@unchecked Sendable` (inherited): touched on the connection's event loop only, but for `outboundPipeChanged`, which
/// goes there.
final class ServerCall: HTTP2Stream, TimerNode, OutboundPipeTarget, @unchecked Sendable {
    /// A request whose one message is still coming.
    struct Pending {
        var route: Route
        var context: RPCContext
    }

    let connection: ServerConnection
    /// Nil until the request's headers have come.
    var machine: ServerStreamMachine?
    var contentType = RequestHead.ContentType.grpc
    /// How the answer's messages may be compressed.
    var encoder = MessageEncoder()
    /// The client speaks of encodings, so that it is told ours.
    var listsEncodings = false
    var pending: Pending?
    /// Until it returns, even if nobody waits for it any more.
    var isHandlerRunning = false
    var handlerTask: Task<Void, Never>?
    var outboundPipe: OutboundPipe?
    var inboundPipe: InboundPipe?
    var endsAtDrain = false
    /// For the observer; nil if it wasn't told of the call's start, or was told of its end.
    var observed: (method: String, since: NIODeadline)?

    var timerIndex = -1
    var timerDeadline = NIODeadline.distantFuture

    init(id: Int32, connection: ServerConnection) {
        self.connection = connection
        super.init(id: id)
    }

    func timerFired(at now: NIODeadline) { self.connection.deadlinePassed(self) }

    func outboundPipeChanged() {
        self.connection.loop.run { self.connection.sendPiped(self) }
    }
}
