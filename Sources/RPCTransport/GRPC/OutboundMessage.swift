import NIOCore

/// A message as it leaves: its bytes, and the flag that says whether they are compressed.
struct OutboundMessage: Sendable {
    var bytes: ByteBuffer
    var isCompressed = false
}
