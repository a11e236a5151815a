public import NIOCore
import NIOPosix
import Synchronization

/// A gRPC client over HTTP/2: one connection, made when it is needed and made anew when it is lost. Calls that the server
/// cannot have begun when that happens are sent again on the new one.
public final class RPCClient: Sendable {
    let channel: ClientChannel

    public init(_ configuration: RPCClientConfiguration) {
        let eventLoop = configuration.eventLoop ?? MultiThreadedEventLoopGroup.singleton.any()
        self.channel = ClientChannel(configuration, loop: EventLoopContext(eventLoop: eventLoop))
    }

    deinit {
        let channel = self.channel
        channel.loop.run { _ = channel.close() }
    }

    /// Closes every connection. Calls under way and later ones fail.
    public func close() async {
        let channel = self.channel
        let closed = channel.loop.eventLoop.makePromise(of: Void.self)
        channel.loop.run { channel.close().cascade(to: closed) }
        try? await closed.futureResult.get()
    }

    /// One message out, one in.
    /// - Parameter path: `/package.Service/Method`
    /// - Throws: the call's status, unless it is OK.
    public func unary(
        _ path: String, _ message: ByteBuffer, options: RPCCallOptions = RPCCallOptions()
    ) async throws(RPCError) -> RPCResponse {
        try await Self.response(of: self.start(path, message, options, expectsOneResponse: true))
    }

    /// One message out, any number in.
    public func serverStreaming(
        _ path: String, _ message: ByteBuffer, options: RPCCallOptions = RPCCallOptions()
    ) async throws(RPCError) -> RPCResponseStream {
        RPCResponseStream(call: self.start(path, message, options, expectsOneResponse: false))
    }

    /// Any number of messages out, one in.
    public func clientStreaming(
        _ path: String, options: RPCCallOptions = RPCCallOptions()
    ) async throws(RPCError) -> RPCClientStreamingCall {
        let call = self.start(path, nil, options, expectsOneResponse: true)
        return RPCClientStreamingCall(
            requests: RPCRequestWriter(call: call, encoder: MessageEncoder(options.compression)),
            handle: ClientCallHandle(call))
    }

    /// Any number of messages both ways.
    public func bidirectional(
        _ path: String, options: RPCCallOptions = RPCCallOptions()
    ) async throws(RPCError) -> RPCBidirectionalCall {
        let call = self.start(path, nil, options, expectsOneResponse: false)
        return RPCBidirectionalCall(
            requests: RPCRequestWriter(call: call, encoder: MessageEncoder(options.compression)),
            responses: RPCResponseStream(call: call))
    }

    private func start(
        _ path: String, _ message: ByteBuffer?, _ options: RPCCallOptions, expectsOneResponse: Bool
    ) -> ClientCall {
        let request = ClientCall.Request(
            path: path, message: message.map { MessageEncoder(options.compression).encode($0, .automatic) },
            expectsOneResponse: expectsOneResponse, options: options,
            deadline: options.timeout.map {
                .now() + .nanoseconds(min($0.clampedNanoseconds, GRPCTimeout.maximumNanoseconds))
            })
        let call = ClientCall(request, streams: message == nil, channel: self.channel)
        call.begin()
        return call
    }

    static func response(of call: ClientCall) async throws(RPCError) -> RPCResponse {
        let messages: [(bytes: ByteBuffer, isCompressed: Bool)]
        do throws(RPCError) {
            messages = try await call.inboundPipe.all()
        } catch {
            if error.code == .cancelled { call.cancel() }
            throw error
        }
        guard let message = messages.first else {
            throw RPCError(.unimplemented, "one response was expected, there was none")
        }
        return call.response.withLock {
            RPCResponse(
                message: message.bytes, initialMetadata: $0.initialMetadata ?? Metadata(),
                trailingMetadata: $0.trailingMetadata ?? Metadata(), isCompressed: message.isCompressed)
        }
    }
}
