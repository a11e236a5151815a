import NIOCore

/// A stream's messages that wait for their reader.
///
/// A peer may fill a stream's window with messages of no or a few bytes, which as elements of their own would take ten
/// times the memory of what they were on the wire and more. So where several wait, the small ones among them are packed
/// behind each other.
struct InboundMessageQueue {
    private enum Element {
        case message(MessageAssembler.Message)
        /// One or more of them, each behind its credit, whether it is compressed, and its length.
        case pack(ByteBuffer)
    }

    /// With fewer elements than that nothing is packed: a reader that keeps up gets what came, uncopied.
    private static let mostUnpacked = 16
    /// A message of more bytes is large enough to be an element.
    private static let largestPacked = 256
    /// A pack isn't added to past that. Small, since whoever keeps a message out of it keeps all of it.
    private static let packBytes = 4096 - Self.packPrefix - Self.largestPacked
    private static let packPrefix = 5

    private var elements = FIFO<Element>()
    /// Older than all elements: what is left of the pack that is being read.
    private var first = ByteBuffer()
    /// Newer than all elements: the pack that is being filled.
    private var last = ByteBuffer()
    /// Of those of a stream's messages that are compressed; the same for all of them.
    private var compression: RPCCompression?

    /// Places in memory, whether messages or packs.
    var slots: Int { self.elements.slots }

    mutating func append(_ message: MessageAssembler.Message) {
        let length = message.bytes.readableBytes
        guard self.elements.count >= Self.mostUnpacked, length <= Self.largestPacked,
            let credit = UInt16(exactly: message.credit)
        else {
            self.closePack()
            return self.elements.append(.message(message))
        }
        if let compression = message.compression { self.compression = compression }
        self.last.writeMultipleIntegers(credit, UInt8(message.compression == nil ? 0 : 1), UInt16(length))
        self.last.writeImmutableBuffer(message.bytes)
        if self.last.readableBytes > Self.packBytes { self.closePack() }
    }

    mutating func popFirst() -> MessageAssembler.Message? {
        if let message = self.unpack() { return message }
        switch self.elements.popFirst() {
        case .message(let message)?: return message
        case .pack(let pack)?: self.first = pack
        case nil: swap(&self.first, &self.last)  // `first` is empty
        }
        return self.unpack()
    }

    mutating func takeAll() -> [MessageAssembler.Message] {
        var all: [MessageAssembler.Message] = []
        while let message = self.popFirst() { all.append(message) }
        return all
    }

    mutating func removeAll() { self = InboundMessageQueue() }

    private mutating func closePack() {
        guard self.last.readableBytes > 0 else { return }
        self.elements.append(.pack(self.last))
        self.last = ByteBuffer()
    }

    private mutating func unpack() -> MessageAssembler.Message? {
        guard self.first.readableBytes > 0,
            let (credit, isCompressed, length) = self.first.readMultipleIntegers(as: (UInt16, UInt8, UInt16).self),
            let bytes = self.first.readSlice(length: Int(length))
        else { return nil }
        // Let go of it with its last message.
        if self.first.readableBytes == 0 { self.first = ByteBuffer() }
        return MessageAssembler.Message(
            bytes: bytes, compression: isCompressed == 0 ? nil : self.compression, credit: Int(credit))
    }
}
