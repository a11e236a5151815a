public import NIOCore

/// What a handler knows of its call besides the message.
public struct RPCContext: Sendable {
    /// The path of the call, `/package.Service/Method`: the same string that routed it.
    public let method: String
    /// What the client sent along. Reserved names are not in it.
    public let metadata: Metadata
    /// When the client stops waiting; nil if it never does. The handler's task is cancelled then.
    public let deadline: ContinuousClock.Instant?
    /// The address of the other side of the connection.
    public let peer: String
    /// Whom it counts for where clients share what there is.
    public let address: ClientAddress
    /// Whether the one request message of a unary or server-streaming call came compressed.
    public internal(set) var requestIsCompressed = false
    /// The certificate that the other side has shown and that was found good; nil without mutual TLS.
    public let peerCertificate: PeerCertificate?
    /// Who calls, as an interceptor found out.
    public var identity: (any Sendable)?

    public init(
        method: String, metadata: Metadata = Metadata(), deadline: ContinuousClock.Instant? = nil, peer: String = "",
        address: ClientAddress = .none, peerCertificate: PeerCertificate? = nil, identity: (any Sendable)? = nil
    ) {
        self.method = method
        self.metadata = metadata
        self.deadline = deadline
        self.peer = peer
        self.address = address
        self.peerCertificate = peerCertificate
        self.identity = identity
    }

    /// Time until the deadline, negative once it has passed; nil without a deadline.
    public var remainingTime: Duration? { self.deadline.map { ContinuousClock.now.duration(to: $0) } }
}

/// What a unary or client-streaming handler answers.
public struct RPCReply: Sendable {
    public var message: ByteBuffer
    /// Sent ahead of the message.
    public var initialMetadata: Metadata
    /// Sent with the status.
    public var trailingMetadata: Metadata
    public var compression: MessageCompression

    public init(
        message: ByteBuffer, initialMetadata: Metadata = Metadata(), trailingMetadata: Metadata = Metadata(),
        compression: MessageCompression = .automatic
    ) {
        self.message = message
        self.initialMetadata = initialMetadata
        self.trailingMetadata = trailingMetadata
        self.compression = compression
    }
}

/// Looks at each call before its handler: who may call, what is known about the caller.
///
/// It begins on the connection's event loop and goes on elsewhere after its first real suspension. It throws an `RPCError`
/// to end the call. Health and reflection calls come by as well.
public protocol RPCInterceptor: Sendable {
    func intercept(_ context: inout RPCContext) async throws
    /// The same for a call whose handler answers at once (`RPCMethod.immediate`), on the event loop, so that it needs no task.
    ///
    /// - Returns: false if it has to wait for something: `intercept` is asked instead. Default: false.
    func interceptAtOnce(_ context: inout RPCContext) throws -> Bool
}

extension RPCInterceptor {
    public func interceptAtOnce(_ context: inout RPCContext) throws -> Bool { false }
}

/// Is told of each call that reached a method, for metrics. Called on event loops: must not block.
public protocol RPCObserver: Sendable {
    /// A call has begun. `method` is a path of this server, never one that a client made up.
    func callStarted(method: String)
    /// The call that has just begun isn't its client's first attempt.
    func callIsRetry(method: String)
    /// The call has its status, as far as this server is concerned.
    func callEnded(method: String, code: RPCCode, duration: Duration)
    /// The server's certificate was read, at the start or since a file has changed; it ends at `notAfter`, in seconds
    /// since 1970.
    func certificateLoaded(notAfter: Int64)
    /// A file of TLS has changed and can't be used; what was read before stays in use.
    func certificateRejected()
    /// A connection or a call was turned away for what its client did. Without an implementation, nobody is told.
    func refused(_ refusal: RPCRefusal)
}

extension RPCObserver {
    public func callIsRetry(method: String) {}
    public func certificateLoaded(notAfter: Int64) {}
    public func certificateRejected() {}
    public func refused(_ refusal: RPCRefusal) {}
}
