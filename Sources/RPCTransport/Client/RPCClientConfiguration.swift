public import NIOCore

/// Whom a client talks to, and all of its limits.
public struct RPCClientConfiguration: Sendable {
    /// A name or a number.
    public var host: String
    public var port: Int
    /// `:authority`; host and port if nil.
    public var authority: String?
    public var userAgent: String = "devicerpc-swift"
    /// Nil for cleartext with prior knowledge.
    public var tls: RPCClientTLS?

    /// For each address, until the server has sent its SETTINGS.
    public var connectTimeout: Duration = .seconds(20)
    /// After an attempt to connect that failed, no other is made for this long, and calls fail at once unless they wait
    /// for a connection. It grows by `backoffFactor` with each further failure up to `maximumBackoff`, and is varied by
    /// `backoffJitter` either way (the values of grpc/doc/connection-backoff.md).
    public var initialBackoff: Duration = .seconds(1)
    public var maximumBackoff: Duration = .seconds(120)
    public var backoffFactor: Double = 1.6
    public var backoffJitter: Double = 0.2
    /// A connection that had no calls for this long is closed; nil for never.
    public var idleTimeout: Duration? = .seconds(1800)

    /// For calls whose options have none; nil for no retries but those that cannot do harm.
    public var retryPolicy: RPCRetryPolicy?
    /// Nil for retries as often as the policies say.
    public var retryThrottling: RPCRetryThrottling?
    /// Bytes of a streaming request that are kept for another try; past it there is none.
    public var retryBufferBytes: Int = 256 * 1024
    /// Calls that may wait for a connection, or for a free stream where the server has said how many there may be.
    public var maximumWaitingCalls: Int = 10000

    /// The largest response message, in bytes.
    public var maximumMessageBytes: Int = 4 * 1024 * 1024
    /// The largest header block of a response, in bytes as RFC 9113 counts them.
    public var maximumHeaderListBytes: Int = 16384
    /// Bytes that the server may send on a stream ahead of its reader.
    public var streamWindowBytes: Int = 256 * 1024
    /// The same for the whole connection.
    public var connectionWindowBytes: Int = 4 << 20
    /// Unsent bytes of a streaming request past which its writer waits; each message counts 64 more than it has.
    public var streamOutboundBytes: Int = 64 * 1024
    /// A PING is sent after this long without a byte from the server, while there are calls; nil for never. Less than
    /// 10 seconds counts as 10, and each server that complains doubles it (gRFC A8).
    public var keepaliveInterval: Duration?
    /// The connection is given up if nothing comes for this long after a PING.
    public var keepaliveTimeout: Duration = .seconds(20)
    /// PINGs also without calls. Servers have to permit that.
    public var keepaliveWithoutCalls: Bool = false
    package var minimumKeepaliveInterval: Duration = .seconds(10)

    /// Finds the addresses of the host; called where it may take its time. Nil where there is no network.
    package var resolver: (@Sendable (_ host: String, _ port: Int) throws -> [SocketAddress])? = AddressResolver.resolve

    /// The event loop to run on; one of NIO's shared ones if nil.
    public var eventLoop: (any EventLoop)?

    public init(host: String = "127.0.0.1", port: Int) {
        self.host = host
        self.port = port
    }

    var effectiveAuthority: String {
        if let authority = self.authority { return authority }
        return self.host.contains(":") ? "[\(self.host)]:\(self.port)" : "\(self.host):\(self.port)"
    }

    var http2: HTTP2Configuration {
        var configuration = HTTP2Configuration()
        configuration.streamWindowBytes = self.streamWindowBytes
        configuration.connectionWindowBytes = self.connectionWindowBytes
        configuration.headerListBytes = self.maximumHeaderListBytes
        // A server may reset as many calls as it likes: they are ours. What comes for calls that were given up counts as
        // of no use, and there may be many of those.
        configuration.frameBudget.controlFrames = TokenBucket.Rate(burst: 10_000, perSecond: 2000)
        configuration.frameBudget.resets = TokenBucket.Rate(burst: 1_000_000, perSecond: 1_000_000)
        return configuration
    }
}

/// What one call is to be like.
public struct RPCCallOptions: Sendable {
    public var metadata: Metadata
    /// After this long the call fails with DEADLINE_EXCEEDED, on both sides; nil for never.
    public var timeout: Duration?
    /// Waits for a connection, instead of failing with UNAVAILABLE while there is none to be had.
    public var waitsForReady: Bool
    /// When to try again; the client's policy if nil.
    public var retryPolicy: RPCRetryPolicy?
    /// How request messages are compressed; nil for not. A server that doesn't know it answers UNIMPLEMENTED.
    public var compression: RPCCompression?

    public init(
        metadata: Metadata = Metadata(), timeout: Duration? = nil, waitsForReady: Bool = false,
        retryPolicy: RPCRetryPolicy? = nil, compression: RPCCompression? = nil
    ) {
        self.metadata = metadata
        self.timeout = timeout
        self.waitsForReady = waitsForReady
        self.retryPolicy = retryPolicy
        self.compression = compression
    }
}

/// What a call with one response message brought.
public struct RPCResponse: Sendable {
    public var message: ByteBuffer
    public var initialMetadata: Metadata
    public var trailingMetadata: Metadata
    /// Whether the message came compressed.
    public var isCompressed = false
}
