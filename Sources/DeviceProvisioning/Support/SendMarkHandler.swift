import NIOCore
import NIOHTTP1

/// Between AsyncHTTPClient's own handler and the encoder: every part of a request passes here before it becomes bytes.
final class SendMarkHandler: ChannelOutboundHandler {
    typealias OutboundIn = HTTPClientRequestPart
    typealias OutboundOut = HTTPClientRequestPart

    private let marks: SendMarks
    /// The current request may not leave.
    private var isHeldBack = false

    init(_ marks: SendMarks) { self.marks = marks }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard !self.isHeldBack else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        guard case .head(var head) = Self.unwrapOutboundIn(data) else {
            context.write(data, promise: promise)
            return
        }
        let name = head.headers.first(name: SendMarks.header).flatMap { UInt64($0) }
        head.headers.remove(name: SendMarks.header)
        // A mark that is forgotten belongs to a call that has ended.
        if let name, let mark = self.marks.mark(name), mark.mayLeave() {
            context.write(Self.wrapOutboundOut(.head(head)), promise: promise)
        } else {
            self.isHeldBack = true
            promise?.fail(ChannelError.ioOnClosedChannel)
            // Not at once: the client's handler is in the midst of sending, and takes it that the head was written. The
            // connection is of no use any more, because that handler waits for an answer.
            let channel = context.channel
            context.eventLoop.execute { channel.close(promise: nil) }
        }
    }
}
