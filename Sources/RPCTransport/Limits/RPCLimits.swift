/// What a client may cost a server before it is turned away. docs/abuse.md tells which attack each one answers.
public struct RPCLimits: Sendable {
    /// A budget: so many at once, and so many more a second.
    public struct Rate: Sendable, Equatable {
        public var burst: Int
        public var perSecond: Int

        public init(burst: Int, perSecond: Int) {
            self.burst = burst
            self.perSecond = perSecond
        }
    }

    /// Connections of one IPv4 address, or IPv6 network (/64), at a time.
    public var maximumConnectionsPerAddress = 16000
    /// Connections at a time whose handshake (TLS, preface, SETTINGS) isn't over. Past it, only addresses that have less
    /// than an equal share of them get one more.
    public var maximumHandshakes = 4096

    /// Most fields in a header block.
    public var maximumHeaderFields = 128
    /// Frames that may wait to be sent on a connection, DATA not counted.
    public var maximumQueuedFrames = 5000
    /// PING and SETTINGS acknowledgements that may wait to be sent on a connection.
    public var maximumUnsentAcknowledgements = 128
    /// Response bytes of a connection that wait for the client's flow-control windows, past which its next requests
    /// wait. At eight times that (what was already running) the connection is closed.
    public var maximumUnreadBytes = 16 << 20

    /// Bytes of a connection's requests whose handlers have not begun, past which only one of its calls may send more
    /// than its window has room for.
    public var maximumBufferedRequestBytes = 16 << 20

    /// Bytes of such requests, of streams' messages that their handlers have not taken, of responses that wait, and of
    /// calls that run (8 KiB each, their headers and requests) that all connections together have the server keep. Past
    /// it, connections are closed that have more than an equal part of an address's share, of addresses that have more
    /// than an equal share.
    public var maximumKeptBytes = 1 << 30

    /// How long a request's message may take to arrive once it was begun, that of a unary call from its headers on…
    public var requestTimeout = Duration.seconds(30)
    /// …and a second more for so many of its bytes. A response must be read at least as fast.
    public var minimumBytesPerSecond = 1024
    /// A streaming call whose client takes none of what is waiting for it for this long is reset.
    public var stalledStreamTimeout = Duration.seconds(300)

    /// RST_STREAM frames of a client, but for those of calls that were answered or had lasted for 100 ms: gRPC clients
    /// reset in earnest (cancelled calls, deadlines).
    public var resets = Rate(burst: 10000, perSecond: 1000)
    /// Calls that their client resets before they have an answer, within 100 ms and half of their time; each call that is
    /// answered makes up for one.
    public var unansweredResets = Rate(burst: 2000, perSecond: 200)
    /// Invalid frames, and streams that this server has to reset for what the client does.
    public var errors = Rate(burst: 500, perSecond: 50)
    /// Frames other than HEADERS, RST_STREAM and DATA with content. Three are free for each HEADERS or DATA sent.
    public var controlFrames = Rate(burst: 2000, perSecond: 500)

    public init() {}
}

extension TokenBucket.Rate {
    init(_ rate: RPCLimits.Rate) { self.init(burst: rate.burst, perSecond: rate.perSecond) }
}
