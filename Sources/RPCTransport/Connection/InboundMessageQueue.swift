import NIOCore

/// Messages that wait for their reader.
///
/// A peer fills a stream's window with empty messages of 5 bytes each, or hardly longer ones; as elements they would take
/// ten times that and more. So where many wait, the small ones among them are packed behind each other.
struct InboundMessageQueue {
    private enum Element {
        case message(MessageAssembler.Message)
        /// One or more of them: credit, compression and length, and the bytes.
        case pack(ByteBuffer)
    }

    /// With fewer elements than that nothing is packed: it is not worth the copy.
    private static let mostUnpacked = 256
    /// A message of more bytes is large enough to be an element.
    private static let largestPacked = 256
    /// A pack is closed before it outgrows 16 KiB.
    private static let packBytes = 16384 - 512

    private var elements = FIFO<Element>()
    /// Older than all elements.
    private var first = ByteBuffer()
    /// Newer than all elements.
    private var last = ByteBuffer()

    /// Elements in memory.
    var slots: Int { self.elements.slots }

    mutating func append(_ message: MessageAssembler.Message) {
        let length = message.bytes.readableBytes
        guard self.elements.count >= Self.mostUnpacked, length <= Self.largestPacked,
            let credit = UInt16(exactly: message.credit)
        else {
            self.closePack()
            return self.elements.append(.message(message))
        }
        self.last.writeInteger(credit)
        self.last.writeInteger(Self.code(message.compression))
        self.last.writeInteger(UInt16(length))
        self.last.writeImmutableBuffer(message.bytes)
        if self.last.readableBytes >= Self.packBytes { self.closePack() }
    }

    mutating func popFirst() -> MessageAssembler.Message? {
        if let message = self.unpack() { return message }
        switch self.elements.popFirst() {
        case .message(let message)?: return message
        case .pack(let pack)?: self.first = pack
        case nil:
            self.first = self.last
            self.last = ByteBuffer()
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
        guard let credit = self.first.readInteger(as: UInt16.self), let code = self.first.readInteger(as: UInt8.self),
            let length = self.first.readInteger(as: UInt16.self), let bytes = self.first.readSlice(length: Int(length))
        else { return nil }
        if self.first.readableBytes == 0 { self.first = ByteBuffer() }
        return MessageAssembler.Message(bytes: bytes, compression: Self.compression(code), credit: Int(credit))
    }

    private static func code(_ compression: RPCCompression?) -> UInt8 {
        switch compression {
        case nil: 0
        case .gzip: 1
        case .deflate: 2
        }
    }

    private static func compression(_ code: UInt8) -> RPCCompression? {
        switch code {
        case 1: .gzip
        case 2: .deflate
        default: nil
        }
    }
}
