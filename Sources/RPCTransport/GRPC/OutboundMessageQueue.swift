import NIOCore

/// Messages on their way out of one stream, read in pieces of any size, each behind its five-byte prefix.
///
/// A message's bytes are shared, never copied in: one encoded message may wait in thousands of streams.
struct OutboundMessageQueue {
    static let prefixLength = 5

    /// The message being read, and how much of prefix + message has been.
    private var current: OutboundMessage?
    private var position = 0
    private var waiting = FIFO<OutboundMessage>()

    /// Bytes left to read, prefixes included.
    private(set) var byteCount = 0
    /// That, and the overhead of each message that has not been read to its end.
    private(set) var charge = 0

    var isEmpty: Bool { self.byteCount == 0 }

    /// True if no message has been read in part only.
    var isAtBoundary: Bool { self.position == 0 }

    mutating func append(_ message: OutboundMessage) {
        self.byteCount += Self.prefixLength + message.bytes.readableBytes
        self.charge += message.charge
        if self.current == nil {
            self.current = message
        } else {
            self.waiting.append(message)
        }
    }

    mutating func append(_ messages: [OutboundMessage]) {
        if messages.count > 1 { self.waiting.reserveCapacity(self.waiting.count + messages.count) }
        for message in messages { self.append(message) }
    }

    /// Drops what has not been read.
    mutating func removeAll() {
        self.current = nil
        self.position = 0
        self.waiting = FIFO()
        self.byteCount = 0
        self.charge = 0
    }

    /// Reads up to `count` bytes into memory that has room for them.
    mutating func read(_ count: Int, into target: UnsafeMutableRawPointer) {
        var target = target
        var left = min(count, self.byteCount)
        self.byteCount -= left
        self.charge -= left
        while left > 0 {
            let read = self.readCurrent(left, into: target)
            target += read
            left -= read
        }
    }

    /// Reads bytes of the current message, prefix included, and leaves it once it has been read to its end.
    private mutating func readCurrent(_ count: Int, into target: UnsafeMutableRawPointer) -> Int {
        guard let message = self.current else { return count }  // not while `byteCount` is right
        let length = message.bytes.readableBytes
        let piece = min(count, Self.prefixLength + length - self.position)
        var written = 0
        if self.position < Self.prefixLength {
            // The five bytes of the prefix, in the upper ones of a word.
            let prefix = UInt64(message.isCompressed ? 1 : 0) << 56 | UInt64(UInt32(length)) << 24
            withUnsafeBytes(of: prefix.bigEndian) { bytes in
                written = min(piece, Self.prefixLength - self.position)
                target.copyMemory(from: bytes.baseAddress.unsafelyUnwrapped + self.position, byteCount: written)
            }
        }
        if piece > written {
            let offset = self.position + written - Self.prefixLength
            message.bytes.withUnsafeReadableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                (target + written).copyMemory(from: base + offset, byteCount: piece - written)
            }
        }
        self.position += piece
        if self.position == Self.prefixLength + length { self.advance() }
        return piece
    }

    private mutating func advance() {
        self.position = 0
        self.charge -= OutboundMessage.overhead
        self.current = self.waiting.popFirst()
    }
}
