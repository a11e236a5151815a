public import NIOCore
import Synchronization

/// The response messages of a call. One task may read, once. Letting go of it, or cancelling the task that reads,
/// cancels the call.
public struct RPCResponseStream: AsyncSequence, Sendable {
    public typealias Element = ByteBuffer
    public typealias Failure = RPCError

    private let handle: ClientCallHandle

    init(call: ClientCall) { self.handle = ClientCallHandle(call) }

    public struct AsyncIterator: AsyncIteratorProtocol {
        let handle: ClientCallHandle
        /// Whether the last message came compressed.
        public private(set) var isCompressed = false

        init(handle: ClientCallHandle) { self.handle = handle }

        public mutating func next() async throws(RPCError) -> ByteBuffer? {
            guard let message = try await self.handle.next() else { return nil }
            self.isCompressed = message.isCompressed
            return message.bytes
        }

        public mutating func next(isolation actor: isolated (any Actor)?) async throws(RPCError) -> ByteBuffer? {
            guard let message = try await self.handle.next() else { return nil }
            self.isCompressed = message.isCompressed
            return message.bytes
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(handle: self.handle) }

    /// The response's metadata, once it has come; empty if the call ended without.
    public var initialMetadata: Metadata {
        get async { await self.handle.call.headers() }
    }

    /// What came with the status. Nil until the call has ended.
    public var trailingMetadata: Metadata? { self.handle.call.response.withLock { $0.trailingMetadata } }

    public func cancel() { self.handle.call.cancel() }
}

/// Cancels the call when the last one lets go of it.
final class ClientCallHandle: Sendable {
    let call: ClientCall

    init(_ call: ClientCall) { self.call = call }

    deinit {
        if !self.call.response.withLock({ $0.isEnded }) { self.call.cancel() }
    }

    func next() async throws(RPCError) -> (bytes: ByteBuffer, isCompressed: Bool)? {
        do throws(RPCError) {
            return try await self.call.inboundPipe.next()
        } catch {
            // The reader gave up, or cannot go on; without effect on a call that is over.
            self.call.cancel()
            throw error
        }
    }
}

/// The request messages of a streaming call.
public struct RPCRequestWriter: Sendable {
    let call: ClientCall
    let encoder: MessageEncoder

    /// Queues a message; waits while too much of this call is unsent.
    /// - Parameter compression: without effect on a call whose options ask for none.
    /// - Throws: the call's status, once the call is over.
    public func write(
        _ message: ByteBuffer, compression: MessageCompression = .automatic
    ) async throws(RPCError) {
        try await self.call.outboundPipe?.write(self.encoder.encode(message, compression))
    }

    /// No more messages will follow.
    public func finish() { self.call.outboundPipe?.end() }
}

/// A call with any number of request messages and one response.
public struct RPCClientStreamingCall: Sendable {
    public let requests: RPCRequestWriter
    let handle: ClientCallHandle

    /// Ends the request and waits for the response.
    public func response() async throws(RPCError) -> RPCResponse {
        self.requests.finish()
        return try await RPCClient.response(of: self.handle.call)
    }

    public func cancel() { self.handle.call.cancel() }
}

/// A call with any number of messages both ways.
public struct RPCBidirectionalCall: Sendable {
    public let requests: RPCRequestWriter
    public let responses: RPCResponseStream

    public func cancel() { self.responses.cancel() }
}
