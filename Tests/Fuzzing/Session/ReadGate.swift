import NIOCore

/// Stands where the socket is: the connection's wish to read comes this far, or doesn't.
final class ReadGate: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer

    var isOpen = false

    func read(context: ChannelHandlerContext) { self.isOpen = true }
}
