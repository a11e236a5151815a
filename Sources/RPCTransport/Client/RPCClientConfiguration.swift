public import NIOCore

/// Whom a client talks to, and all of its limits.
public struct RPCClientConfiguration: Sendable {
    /// A name or a number.
    public var host: String
    public var port: Int
    /// `:authority`; host and port if nil.
    public var authority: String?
    public var userAgent: String = "devicerpc-swift"

    public var connectTimeout: Duration = .seconds(5)
    /// After a failed attempt to connect, calls fail at once for this long; it grows by `backoffFactor` with each
    /// further failure up to `maximumBackoff`, and is varied by a fifth either way.
    public var initialBackoff: Duration = .milliseconds(200)
    public var maximumBackoff: Duration = .seconds(10)
    public var backoffFactor: Double = 1.6

    /// The largest response message, in bytes.
    public var maximumMessageBytes: Int = 4 * 1024 * 1024
    /// The largest header block of a response, in bytes as RFC 9113 counts them.
    public var maximumHeaderListBytes: Int = 16384
    /// Bytes that the server may send on a stream ahead of its reader.
    public var streamWindowBytes: Int = 256 * 1024
    /// The same for the whole connection.
    public var connectionWindowBytes: Int = 4 << 20
    /// Unsent bytes of a streaming request past which its writer waits.
    public var streamOutboundBytes: Int = 64 * 1024
    /// A PING is sent after this long without a byte from the server, while there are calls; nil for never.
    public var keepaliveInterval: Duration?
    /// The connection is given up if nothing comes for this long after a PING.
    public var keepaliveTimeout: Duration = .seconds(20)

    /// The event loop to run on; one of NIO's shared ones if nil.
    public var eventLoop: (any EventLoop)?

    public init(host: String = "127.0.0.1", port: Int) {
        self.host = host
        self.port = port
    }

    var http2: HTTP2Configuration {
        var configuration = HTTP2Configuration()
        configuration.streamWindowBytes = self.streamWindowBytes
        configuration.connectionWindowBytes = self.connectionWindowBytes
        configuration.headerListBytes = self.maximumHeaderListBytes
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
    /// How request messages are compressed; nil for not. A server that doesn't know it answers UNIMPLEMENTED.
    public var compression: RPCCompression?

    public init(
        metadata: Metadata = Metadata(), timeout: Duration? = nil, waitsForReady: Bool = false,
        compression: RPCCompression? = nil
    ) {
        self.metadata = metadata
        self.timeout = timeout
        self.waitsForReady = waitsForReady
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
