import NIOCore

/// Decides whether messages of one call are compressed on their way out, and does it.
struct MessageEncoder: Sendable {
    /// What the other side understands, and was told to expect; nil for nothing.
    var compression: RPCCompression?
    /// Messages from this size on are compressed without being asked; nil for none.
    var automaticBytes: Int?

    init(compression: RPCCompression? = nil, automaticBytes: Int? = nil) {
        self.compression = compression
        self.automaticBytes = automaticBytes
    }

    /// For the messages of a call that asks for this: compressed unless they opt out.
    init(_ compression: RPCCompression?) { self.init(compression: compression, automaticBytes: 0) }

    /// Whether `encode` has work to do that is none for an event loop.
    @inline(__always)
    func compresses(_ message: ByteBuffer, _ choice: MessageCompression) -> Bool {
        switch choice {
        case .never: false
        case .automatic: self.automaticBytes.map { message.readableBytes >= $0 } ?? false && self.compression != nil
        case .always: self.compression != nil
        }
    }

    func encode(_ message: ByteBuffer, _ choice: MessageCompression) -> OutboundMessage {
        switch choice {
        case .never: break
        case .automatic:
            if let automaticBytes, message.readableBytes >= automaticBytes, let compression,
                let deflated = Deflater.deflate(message, compression), deflated.readableBytes < message.readableBytes
            {
                return OutboundMessage(bytes: deflated, isCompressed: true)
            }
        case .always:
            if let compression, let deflated = Deflater.deflate(message, compression) {
                return OutboundMessage(bytes: deflated, isCompressed: true)
            }
        }
        return OutboundMessage(bytes: message)
    }
}
