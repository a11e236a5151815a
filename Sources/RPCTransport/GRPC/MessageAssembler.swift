import NIOCore

/// Cuts a stream's bytes into messages: a flag byte, a 32-bit length, the message (PROTOCOL-HTTP2.md, Length-Prefixed-
/// Message). Where DATA frames begin and end means nothing.
struct MessageAssembler {
    struct Message {
        /// As they came: `decoded` inflates them.
        var bytes: ByteBuffer
        /// How they are compressed, if they are.
        var compression: RPCCompression?
        /// Bytes of the stream's flow-control window, prefix included, that were not given back while it was assembled.
        var credit: Int

        /// On the wire, prefix included, in bytes.
        var size: Int { 5 + self.bytes.readableBytes }

        /// The message itself. Inflated only now, when somebody is about to take it: what waits stays small.
        /// - Parameter limit: in bytes, also of what comes out.
        func decoded(limit: Int, side: StaticString) throws(RPCError) -> ByteBuffer {
            guard let compression else { return self.bytes }
            do throws(Inflater.Failure) {
                return try Inflater.inflate(self.bytes, compression, limit: limit)
            } catch {
                switch error {
                case .tooLarge:
                    throw RPCError(
                        .resourceExhausted,
                        "the message has more than \(limit) bytes once decompressed; the \(side) receives no more"
                    ).counted(as: .messageInflates)
                case .malformed: throw RPCError(.internal, "a message is not \(compression.rawValue) as announced")
                case .outOfMemory: throw RPCError(.resourceExhausted, "no memory to decompress a message")
                }
            }
        }
    }

    private enum State {
        /// Reading the five bytes of a prefix; `length` bytes of it are in `value`.
        case prefix(length: Int, value: UInt64)
        /// Reading a message of which `missing` bytes are still to come.
        case message(missing: Int)
    }

    /// The largest message accepted, in bytes. Checked on the prefix, before anything is buffered.
    let limit: Int
    /// Who refuses, for the message of the error.
    let side: StaticString
    /// What the peer announced in `grpc-encoding`; nil for nothing, or nothing that is understood.
    var compression: RPCCompression?

    private var state = State.prefix(length: 0, value: 0)
    private var partial = ByteBuffer()
    /// The message under way is compressed.
    private var isCompressed = false
    /// Bytes of the message under way that have been given back already.
    private var creditedBytes = 0
    /// Bytes of the message under way that have not.
    private var uncreditedBytes = 0

    init(limit: Int, side: StaticString, compression: RPCCompression? = nil) {
        self.limit = limit
        self.side = side
        self.compression = compression
    }

    /// True if the stream may end here.
    var isAtBoundary: Bool {
        if case .prefix(length: 0, _) = self.state { true } else { false }
    }

    /// Takes bytes from `chunk` until a message is whole or the chunk is used up (nil).
    mutating func next(from chunk: inout ByteBuffer) throws(RPCError) -> Message? {
        while true {
            switch self.state {
            case .prefix(let length, let value):
                if length == 0, chunk.readableBytes >= 5,
                    let flag = chunk.readInteger(as: UInt8.self), let size = chunk.readInteger(as: UInt32.self)
                {
                    self.uncreditedBytes += 5
                    try self.begin(flag: flag, size: Int(size))
                } else {
                    guard let byte = chunk.readInteger(as: UInt8.self) else { return nil }
                    self.uncreditedBytes += 1
                    let value = value << 8 | UInt64(byte)
                    if length < 4 {
                        self.state = .prefix(length: length + 1, value: value)
                    } else {
                        try self.begin(flag: UInt8(value >> 32), size: Int(value & 0xFFFF_FFFF))
                    }
                }
            case .message(let missing):
                if self.partial.readableBytes == 0, chunk.readableBytes >= missing {
                    self.uncreditedBytes += missing
                    return self.end(Self.take(missing, from: &chunk))
                }
                let count = min(missing, chunk.readableBytes)
                self.makeRoom(for: count, of: missing)
                if var part = chunk.readSlice(length: count) { self.partial.writeBuffer(&part) }
                self.uncreditedBytes += count
                guard count == missing else {
                    self.state = .message(missing: missing - count)
                    return nil
                }
                let whole = self.partial
                self.partial = ByteBuffer()
                return self.end(whole)
            }
        }
    }

    /// Bytes of an incomplete message that have to be given back to the peer at once: it could not send the rest of
    /// a message larger than the window otherwise. To be asked after each chunk.
    mutating func takeCreditOfIncompleteMessage() -> Int {
        let credit = self.uncreditedBytes
        self.creditedBytes += credit
        self.uncreditedBytes = 0
        return credit
    }

    /// Room for 64 KiB at first, so that a peer which only announces a large message gets no memory for it; once they
    /// have come, for all of it: growing step by step would copy it over and over.
    private mutating func makeRoom(for count: Int, of missing: Int) {
        if self.partial.readableBytes == 0 {
            self.partial.reserveCapacity(min(missing, 65536))
        } else if self.partial.writableBytes < count {
            self.partial.reserveCapacity(self.partial.readableBytes + missing)
        }
    }

    private mutating func begin(flag: UInt8, size: Int) throws(RPCError) {
        switch flag {
        case 0: self.isCompressed = false
        case 1:
            guard self.compression != nil else {
                throw RPCError(.internal, "a compressed message, but no grpc-encoding for it was announced")
            }
            self.isCompressed = true
        default: throw RPCError(.internal, "unknown flag \(flag) in a message's prefix")
        }
        guard size <= self.limit else {
            throw RPCError(
                .resourceExhausted, "the message has \(size) bytes; the \(self.side) receives at most \(self.limit)"
            ).counted(as: .messageTooLarge)
        }
        self.state = .message(missing: size)
    }

    private mutating func end(_ bytes: ByteBuffer) -> Message {
        let message = Message(
            bytes: bytes, compression: self.isCompressed ? self.compression : nil, credit: self.uncreditedBytes)
        self.state = .prefix(length: 0, value: 0)
        self.creditedBytes = 0
        self.uncreditedBytes = 0
        return message
    }

    /// A slice where the message is most of the read, else a copy: a small message must not keep a large read alive.
    private static func take(_ count: Int, from chunk: inout ByteBuffer) -> ByteBuffer {
        guard count > 0, let slice = chunk.readSlice(length: count) else { return ByteBuffer() }
        if count * 2 >= chunk.storageCapacity { return slice }
        var copy = ByteBufferAllocator().buffer(capacity: count)
        copy.writeImmutableBuffer(slice)
        return copy
    }
}
