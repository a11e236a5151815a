import NIOCore

/// Gives a connection's channel the memory to read into: the event loop's, which a connection has for its turn only.
struct ConnectionReads: RecvByteBufferAllocator {
    /// The channel keeps the buffer of its first read for good: that one is small, and the connection's own.
    private static let firstBytes = 256

    let connection: HTTP2Connection

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        guard self.connection.hasRead else { return allocator.buffer(capacity: Self.firstBytes) }
        return self.connection.loop.lendReadBuffer(self.connection.readSize.bytes)
    }

    /// Nil, and true below: the channel asks for a buffer each time, instead of using again the one that it keeps.
    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool { true }
}
