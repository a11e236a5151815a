import Glibc
import NIOCore

/// On the listening socket: hears of connections that accept(2) could not take because descriptors or memory had run out.
final class AcceptFailures: ChannelInboundHandler {
    typealias InboundIn = any Channel

    /// How long nothing is accepted after such a failure: the connection that could not be taken waits, and asking again at
    /// once would take a whole core.
    static let pause: TimeAmount = .milliseconds(100)

    private let onFailure: () -> Void

    init(onFailure: @escaping () -> Void) { self.onFailure = onFailure }

    /// EMFILE, ENFILE: no descriptor is free. ENOBUFS, ENOMEM: no memory.
    static func isExhaustion(_ error: IOError) -> Bool { [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(error.errnoCode) }

    /// Adds the pause and the report to a listening channel.
    static func add(to channel: any Channel, onFailure: @escaping @Sendable () -> Void) throws {
        try channel.pipeline.syncOperations.addHandlers(
            AcceptBackoffHandler(shouldForwardIOErrorCaught: true) { Self.isExhaustion($0) ? Self.pause : nil },
            AcceptFailures(onFailure: onFailure))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError else { return context.fireErrorCaught(error) }
        // Anything else (ECONNABORTED) is a client that went away again.
        if Self.isExhaustion(error) { self.onFailure() }
    }
}
