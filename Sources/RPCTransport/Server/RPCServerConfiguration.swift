/// Where a server listens, and all of its limits.
public struct RPCServerConfiguration: Sendable {
    /// The address to listen on, a name or a number.
    public var host: String
    /// Zero lets the system choose; `RPCServer.start` tells.
    public var port: Int
    /// Event loops, each a thread. Connections are spread over them.
    public var eventLoops: Int = 1
    public var backlog: Int = 1024
    /// Nil speaks cleartext.
    public var tls: RPCServerTLS?

    /// Connections at a time; the next are closed at once.
    public var maximumConnections: Int = 20000
    /// Calls at a time on a connection, as advertised to clients: they wait with what is more.
    public var maximumConcurrentStreams: Int = 1000
    /// Handlers running at a time for a connection, those of cancelled calls included until they return. Calls beyond
    /// that are refused unprocessed.
    public var maximumRunningHandlers: Int = 2000
    /// The largest request message, in bytes, for methods that don't have their own limit.
    public var maximumMessageBytes: Int = 4 * 1024 * 1024
    /// The largest header block, in bytes as RFC 9113 counts them (32 more for each field).
    public var maximumHeaderListBytes: Int = 16384
    /// Bytes that a client may send on a stream ahead of the handler.
    public var streamWindowBytes: Int = 65535
    /// The same for the whole connection.
    public var connectionWindowBytes: Int = 1 << 20
    /// Unsent bytes of a streaming call past which its writer waits; each message counts 64 more than it has.
    public var streamOutboundBytes: Int = 64 * 1024
    /// Responses from this size on, in bytes, are compressed for clients that understand it, unless their handler says
    /// otherwise; nil for none.
    public var compressedResponseBytes: Int?
    /// A deadline for unary calls whose clients set none or a later one; nil for none.
    public var maximumUnaryTimeout: Duration?

    /// Told of each call that reached a method and has ended; on event loops, so that it must not block.
    public var accessLog: (@Sendable (RPCAccess) -> Void)?

    /// Time for a new connection to finish the handshake of TLS and send its preface and SETTINGS, and for a header block to be completed.
    public var handshakeTimeout: Duration = .seconds(10)
    /// A PING is sent after this long without a byte from the client…
    public var keepaliveInterval: Duration = .seconds(60)
    /// …and the connection closed if nothing comes for this long after it.
    public var keepaliveTimeout: Duration = .seconds(20)
    /// Clients that PING more often than this, with nothing sent to them in between, are told to calm down.
    public var minimumPingInterval: Duration = .seconds(10)
    /// False: clients without a call may PING every two hours only.
    public var permitsPingsWithoutCalls: Bool = true
    /// A connection without calls for this long is told to go; nil for never.
    public var maximumConnectionIdle: Duration?
    /// So is one of this age, a tenth more or less so that connections made together don't end together. Its calls go
    /// on.
    public var maximumConnectionAge: Duration?
    /// What still runs this long after that is ended; nil for never.
    public var maximumConnectionAgeGrace: Duration?
    /// A client that takes no byte for this long, while there is something for it, is disconnected.
    public var writeTimeout: Duration = .seconds(30)

    /// What else a client may cost before it is turned away.
    public var limits = RPCLimits()

    /// How long `beginGracefulShutdown` lets running calls go on before it closes their connections.
    public var drainTimeout: Duration = .seconds(30)
    /// How calls end then that would not end by themselves (`endsAtDrain`).
    public var drainError = RPCError(.unavailable, "the server is draining")
    /// How long a draining connection waits for the client's answer to its PING before the final GOAWAY.
    public var drainPingTimeout: Duration = .seconds(5)

    public init(host: String = "127.0.0.1", port: Int = 50051) {
        self.host = host
        self.port = port
    }

    var http2: HTTP2Configuration {
        var configuration = HTTP2Configuration()
        configuration.maximumConcurrentStreams = UInt32(clamping: self.maximumConcurrentStreams)
        configuration.streamWindowBytes = self.streamWindowBytes
        configuration.connectionWindowBytes = self.connectionWindowBytes
        configuration.headerListBytes = self.maximumHeaderListBytes
        configuration.headerFields = self.limits.maximumHeaderFields
        configuration.unsentAcknowledgements = self.limits.maximumUnsentAcknowledgements
        configuration.queuedFrames = self.limits.maximumQueuedFrames
        configuration.frameBudget = FrameBudget.Configuration(
            controlFrames: TokenBucket.Rate(self.limits.controlFrames), resets: TokenBucket.Rate(self.limits.resets),
            unansweredResets: TokenBucket.Rate(self.limits.unansweredResets),
            errors: TokenBucket.Rate(self.limits.errors))
        return configuration
    }
}
