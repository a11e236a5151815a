import Glibc
import NIOCore

/// Messages on their way out of one stream, read in pieces of any size, each behind its five-byte prefix.
///
/// A message's bytes are shared, never copied in: one encoded message may wait in thousands of streams.
struct OutboundMessageQueue {
    static let prefixLength = 5

    /// The message being read, and how much of prefix + message has been.
    private var current: OutboundMessage?
    private var position = 0
    private var waiting: [OutboundMessage] = []
    private var waitingHead = 0

    /// Bytes left to read, prefixes included.
    private(set) var byteCount = 0

    var isEmpty: Bool { self.byteCount == 0 }

    /// True if no message has been read in part only.
    var isAtBoundary: Bool { self.position == 0 }

    mutating func append(_ message: OutboundMessage) {
        self.byteCount += Self.prefixLength + message.bytes.readableBytes
        if self.current == nil {
            self.current = message
        } else {
            self.waiting.append(message)
        }
    }

    /// Drops what has not been read.
    mutating func removeAll() {
        self.current = nil
        self.position = 0
        self.waiting = []
        self.waitingHead = 0
        self.byteCount = 0
    }

    /// Reads up to `count` bytes and hands them to `write`, in one or more pieces.
    mutating func read(_ count: Int, _ write: (UnsafeRawBufferPointer) -> Void) {
        var left = min(count, self.byteCount)
        self.byteCount -= left
        while left > 0, let message = self.current {
            let length = message.bytes.readableBytes
            if self.position < Self.prefixLength {
                var prefix = (UInt8(message.isCompressed ? 1 : 0), UInt32(length).bigEndian)
                let piece = min(left, Self.prefixLength - self.position)
                let position = self.position
                withUnsafeBytes(of: &prefix.0) { flag in
                    withUnsafeBytes(of: &prefix.1) { size in
                        var position = position
                        var rest = piece
                        if position == 0 {
                            write(flag)
                            position += 1
                            rest -= 1
                        }
                        guard rest > 0 else { return }
                        write(UnsafeRawBufferPointer(rebasing: size[(position - 1)..<(position - 1 + rest)]))
                    }
                }
                self.position += piece
                left -= piece
            }
            let offset = self.position - Self.prefixLength
            if offset >= 0 {
                let piece = min(left, length - offset)
                if piece > 0 {
                    message.bytes.withUnsafeReadableBytes {
                        write(UnsafeRawBufferPointer(rebasing: $0[offset..<(offset + piece)]))
                    }
                    self.position += piece
                    left -= piece
                }
                if self.position == Self.prefixLength + length { self.advance() }
            }
        }
    }

    /// Reads up to `count` bytes into memory that has room for them.
    mutating func read(_ count: Int, into target: UnsafeMutablePointer<UInt8>) {
        var written = 0
        self.read(count) { piece in
            guard let base = piece.baseAddress else { return }
            memcpy(target + written, base, piece.count)
            written += piece.count
        }
    }

    private mutating func advance() {
        self.position = 0
        if self.waitingHead < self.waiting.count {
            self.current = self.waiting[self.waitingHead]
            self.waiting[self.waitingHead] = OutboundMessage(bytes: ByteBuffer())
            self.waitingHead += 1
            if self.waitingHead == self.waiting.count {
                self.waiting.removeAll(keepingCapacity: self.waiting.count <= 16)
                self.waitingHead = 0
            }
        } else {
            self.current = nil
        }
    }
}
