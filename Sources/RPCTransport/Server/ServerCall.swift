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
    @exclusivity(unchecked) var machine: ServerStreamMachine?
    @exclusivity(unchecked) var contentType = RequestHead.ContentType.grpc
    /// How the answer's messages may be compressed.
    @exclusivity(unchecked) var encoder = MessageEncoder()
    /// The client speaks of encodings, so that it is told ours.
    @exclusivity(unchecked) var listsEncodings = false
    @exclusivity(unchecked) var pending: Pending?
    /// Until it returns, even if nobody waits for it any more.
    @exclusivity(unchecked) var isHandlerRunning = false
    @exclusivity(unchecked) var handlerTask: Task<Void, Never>?
    @exclusivity(unchecked) var outboundPipe: OutboundPipe?
    @exclusivity(unchecked) var inboundPipe: InboundPipe?
    @exclusivity(unchecked) var endsAtDrain = false
    /// When its headers came.
    @exclusivity(unchecked) var begunAt = NIODeadline.uptimeNanoseconds(0)
    /// What its client gives it, or this server at most.
    @exclusivity(unchecked) var timeout: TimeAmount?
    /// How the message that is under way to us gets on; nil between messages.
    @exclusivity(unchecked) var requestWatch: ProgressWatch?
    /// Bytes of the request so far.
    @exclusivity(unchecked) var requestBytes = 0
    /// Bytes of the request that are kept for a handler which has not begun.
    @exclusivity(unchecked) var bufferedBytes = 0
    /// Bytes of a streaming request that its handler has not taken.
    @exclusivity(unchecked) var waitingBytes = 0
    /// What it takes itself, with its headers and, once its handler has begun, its request.
    @exclusivity(unchecked) var ownBytes = 0
    /// Flow-control credit for some of them that the client doesn't get back yet…
    @exclusivity(unchecked) var withheldCredit = 0
    /// …because it is not this call's turn.
    @exclusivity(unchecked) var waitsForCredit = false
    /// The request is whole, and waits until the client has read more of other answers.
    @exclusivity(unchecked) var isHeldBack = false
    /// How the client takes what waits for it; nil if nothing does.
    @exclusivity(unchecked) var responseWatch: ProgressWatch?
    /// For the observer and the access log; nil before the call has reached a method, and once they were told of its end.
    @exclusivity(unchecked) var observed: (method: String, since: NIODeadline)?
    /// For the access log.
    @exclusivity(unchecked) var requestID: String?

    @exclusivity(unchecked) var timerIndex = -1
    @exclusivity(unchecked) var timerDeadline = NIODeadline.distantFuture

    init(id: Int32, connection: ServerConnection) {
        self.connection = connection
        super.init(id: id)
    }

    func timerFired(at now: NIODeadline) { self.connection.deadlinePassed(self) }

    func outboundPipeChanged() {
        if self.connection.loop.isCurrent {
            self.connection.sendLater(self)
        } else {
            self.connection.loop.run { self.connection.sendPiped(self) }
        }
    }
}
