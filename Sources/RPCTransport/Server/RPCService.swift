public import NIOCore

/// A service: methods under one name.
public struct RPCService: Sendable {
    /// With its package, e.g. `grpc.health.v1.Health`.
    public let name: String
    public let methods: [RPCMethod]
    /// Called once when the server begins to drain, before it says goodbye to its clients.
    let onDrain: (@Sendable () -> Void)?

    public init(name: String, methods: [RPCMethod], onDrain: (@Sendable () -> Void)? = nil) {
        self.name = name
        self.methods = methods
        self.onDrain = onDrain
    }
}

/// A method and its handler.
///
/// A handler begins to run on the connection's event loop as soon as its request is there, and goes on elsewhere
/// after its first real suspension: what it does before that must be short and must not block. Its task is cancelled
/// when the client cancels, its connection is lost, its deadline passes, or the server drains and gives up on it.
/// A thrown `RPCError` becomes the call's status; any other error becomes UNKNOWN without its text.
public struct RPCMethod: Sendable {
    public typealias UnaryHandler = @Sendable (ByteBuffer, RPCContext) async throws -> RPCReply
    public typealias ImmediateHandler = @Sendable (ByteBuffer, RPCContext) throws -> RPCReply
    public typealias ServerStreamingHandler = @Sendable (ByteBuffer, RPCContext, RPCWriter) async throws -> Void
    public typealias ClientStreamingHandler = @Sendable (RPCMessageStream, RPCContext) async throws -> RPCReply
    public typealias BidirectionalHandler =
        @Sendable (RPCMessageStream, RPCContext, RPCWriter) async throws -> Void

    enum Handler: Sendable {
        case unary(UnaryHandler)
        case immediate(ImmediateHandler)
        case serverStreaming(ServerStreamingHandler)
        case clientStreaming(ClientStreamingHandler)
        case bidirectional(BidirectionalHandler)
    }

    /// Without the service, e.g. `Check`.
    public let name: String
    let handler: Handler
    /// The call ends with UNAVAILABLE as soon as the server drains: for streams that never end by themselves.
    let endsAtDrain: Bool
    /// The handler goes on on its connection's event loop after each suspension.
    let staysOnEventLoop: Bool
    /// Of a request message, where that is less than the server's limit.
    let maximumMessageBytes: Int?

    var isUnary: Bool {
        switch self.handler {
        case .unary, .immediate: true
        case .serverStreaming, .clientStreaming, .bidirectional: false
        }
    }

    private init(
        _ name: String, _ handler: Handler, endsAtDrain: Bool, staysOnEventLoop: Bool = false, maximumMessageBytes: Int?
    ) {
        self.name = name
        self.handler = handler
        self.endsAtDrain = endsAtDrain
        self.staysOnEventLoop = staysOnEventLoop
        self.maximumMessageBytes = maximumMessageBytes
    }

    /// One message in, one message out.
    public static func unary(
        _ name: String, maximumMessageBytes: Int? = nil, handler: @escaping UnaryHandler
    ) -> RPCMethod {
        RPCMethod(name, .unary(handler), endsAtDrain: false, maximumMessageBytes: maximumMessageBytes)
    }

    /// One message in, one message out, by a handler that never waits. It needs no task of its own, which is a fifth
    /// of what a small call costs, and must be as short as what others do before they first suspend.
    public static func unaryAtOnce(
        _ name: String, maximumMessageBytes: Int? = nil, handler: @escaping ImmediateHandler
    ) -> RPCMethod {
        RPCMethod(name, .immediate(handler), endsAtDrain: false, maximumMessageBytes: maximumMessageBytes)
    }

    /// One message in, any number out through the writer. The call ends when the handler returns.
    ///
    /// - Parameter staysOnEventLoop: the handler runs on its connection's event loop all the time, which spares the way
    ///   to another thread and back for each message. For handlers that only pass on what others have computed: one that
    ///   computes for long holds up the other calls. Interceptors and inflating are no part of it.
    public static func serverStreaming(
        _ name: String, endsAtDrain: Bool = false, staysOnEventLoop: Bool = false, maximumMessageBytes: Int? = nil,
        handler: @escaping ServerStreamingHandler
    ) -> RPCMethod {
        RPCMethod(
            name, .serverStreaming(handler), endsAtDrain: endsAtDrain, staysOnEventLoop: staysOnEventLoop,
            maximumMessageBytes: maximumMessageBytes)
    }

    /// Any number of messages in, one out.
    public static func clientStreaming(
        _ name: String, endsAtDrain: Bool = false, maximumMessageBytes: Int? = nil,
        handler: @escaping ClientStreamingHandler
    ) -> RPCMethod {
        RPCMethod(
            name, .clientStreaming(handler), endsAtDrain: endsAtDrain, maximumMessageBytes: maximumMessageBytes)
    }

    /// Any number of messages both ways. The call ends when the handler returns.
    public static func bidirectional(
        _ name: String, endsAtDrain: Bool = false, maximumMessageBytes: Int? = nil,
        handler: @escaping BidirectionalHandler
    ) -> RPCMethod {
        RPCMethod(
            name, .bidirectional(handler), endsAtDrain: endsAtDrain, maximumMessageBytes: maximumMessageBytes)
    }
}
