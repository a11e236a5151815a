public import NIOCore
import Synchronization

/// The response side of a streaming call, for its handler. Any task may write; messages leave in the order of the
/// writes.
public struct RPCWriter: Sendable {
    let pipe: OutboundPipe
    let encoder: MessageEncoder
    let trailingMetadata: TrailingMetadata

    /// A place for what goes with the status.
    final class TrailingMetadata: Sendable {
        private let metadata = Mutex(Metadata())

        func set(_ metadata: Metadata) { self.metadata.withLock { $0 = metadata } }
        func get() -> Metadata { self.metadata.withLock { $0 } }
    }

    /// Queues a message. Waits while more than the configured number of bytes of this call have not been sent, which
    /// is how a slow client slows its handler down.
    ///
    /// The bytes are shared, not copied: write one encoded message to as many calls as you like. (Compressed, they are
    /// not: each call has its own.)
    /// - Throws: the call's status, once the call is over (cancelled, deadline, connection lost, drain).
    public nonisolated(nonsending) func write(
        _ message: ByteBuffer, compression: MessageCompression = .automatic
    ) async throws(RPCError) {
        guard self.encoder.compresses(message, compression) else {
            return try await self.pipe.write(OutboundMessage(bytes: message))
        }
        try await self.pipe.write(await awayFromEventLoop { self.encoder.encode(message, compression) })
    }

    /// Sends Response-Headers now, ahead of the first message, so that the client knows that its call was accepted.
    public func sendHeaders(_ metadata: Metadata? = nil) throws(RPCError) {
        try self.pipe.sendHeaders(metadata)
    }

    /// What is sent with the status when the handler returns or throws.
    public func setTrailingMetadata(_ metadata: Metadata) { self.trailingMetadata.set(metadata) }
}

/// The request messages of a streaming call, for its handler. One task may read, once.
public struct RPCMessageStream: AsyncSequence, Sendable {
    public typealias Element = ByteBuffer
    public typealias Failure = RPCError

    let pipe: InboundPipe

    public struct AsyncIterator: AsyncIteratorProtocol {
        let pipe: InboundPipe
        /// Whether the last message came compressed.
        public private(set) var isCompressed = false

        init(pipe: InboundPipe) { self.pipe = pipe }

        public mutating func next() async throws(RPCError) -> ByteBuffer? {
            guard let message = try await self.pipe.next() else { return nil }
            self.isCompressed = message.isCompressed
            return message.bytes
        }

        public mutating func next(isolation actor: isolated (any Actor)?) async throws(RPCError) -> ByteBuffer? {
            guard let message = try await self.pipe.next() else { return nil }
            self.isCompressed = message.isCompressed
            return message.bytes
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(pipe: self.pipe) }

    /// Ends the messages for their reader as if the client had ended them: what has come is still delivered, what comes
    /// later is not. Any task may do that.
    public func end() { self.pipe.finish(.success(())) }
}
