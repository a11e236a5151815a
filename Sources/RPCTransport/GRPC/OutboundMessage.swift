import NIOCore

/// A message as it leaves: its bytes, and the flag that says whether they are compressed.
struct OutboundMessage: Sendable {
    var bytes: ByteBuffer
    var isCompressed = false

    /// What keeping a message takes besides its bytes: without it a peer that doesn't read could have us keep the smallest
    /// of messages in ten times the memory that was meant.
    static let overhead = 64

    /// In bytes, what bounds count: prefix and overhead included.
    var charge: Int { OutboundMessageQueue.prefixLength + self.bytes.readableBytes + Self.overhead }
}
