import NIOCore
import NIOHTTP1

/// Between AsyncHTTPClient's own handler and the encoder: every part of a request passes here before it becomes bytes.
///
/// AsyncHTTPClient flushes after the head and again after the body. A small request leaves at once, in one segment.
final class SendMarkHandler: ChannelOutboundHandler {
    typealias OutboundIn = HTTPClientRequestPart
    typealias OutboundOut = HTTPClientRequestPart

    private let marks: SendMarks
    /// The current request may not leave.
    private var isHeldBack = false
    /// What was written of the current request and not flushed; `nil`: between requests.
    private var unflushedBytes: Int?
    /// A request with a larger body leaves in parts.
    private static let maximumUnflushedBytes = 16 * 1024

    init(_ marks: SendMarks) { self.marks = marks }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard !self.isHeldBack else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        let part = Self.unwrapOutboundIn(data)
        switch part {
        case .head: self.unflushedBytes = 0
        case .body(let body): self.unflushedBytes? += body.readableBytes
        case .end: self.unflushedBytes = nil
        }
        guard case .head(var head) = part else {
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

    func flush(context: ChannelHandlerContext) {
        if let unflushed = self.unflushedBytes, unflushed <= Self.maximumUnflushedBytes { return }
        if self.unflushedBytes != nil { self.unflushedBytes = 0 }
        context.flush()
    }
}
