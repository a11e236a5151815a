extension Settings {
    // MARK: Connections

    static let maximumHeaderBytes = Setting<Int>.integer(
        "connections.max-header-bytes", "DEVICERPC_MAX_HEADER_BYTES", .connections, default: 16384,
        in: 1024...1_048_576,
        "The largest header block of a request, counted as HTTP/2 does (32 more for each field); a call with a larger "
            + "one is RESOURCE_EXHAUSTED.")
    static let maximumUnaryTimeout = Setting<Duration>.duration(
        "connections.max-unary-timeout", "DEVICERPC_MAX_UNARY_TIMEOUT", .connections, default: .zero,
        in: .zero ... .seconds(86400),
        "The longest that a call with one answer may take, whatever deadline its client sets; then it is "
            + "DEADLINE_EXCEEDED, and its saga goes on. 0s: no limit.")
    static let compressFromBytes = Setting<Int>.integer(
        "connections.compress-from-bytes", "DEVICERPC_COMPRESS_FROM_BYTES", .connections, default: 0,
        in: 0...67_108_864,
        "Answers from this size on are compressed for clients that understand gzip or deflate; 0: none are.")
    static let keepaliveInterval = Setting<Duration>.duration(
        "connections.keepalive-interval", "DEVICERPC_KEEPALIVE_INTERVAL", .connections, default: .seconds(60),
        in: .milliseconds(100) ... .seconds(86400), "After this long without a byte, a client is sent a PING.")
    static let keepaliveTimeout = Setting<Duration>.duration(
        "connections.keepalive-timeout", "DEVICERPC_KEEPALIVE_TIMEOUT", .connections, default: .seconds(20),
        in: .milliseconds(100) ... .seconds(3600),
        "A connection on which nothing comes for this long after the PING is closed and its calls are cancelled.")
    static let minimumPingInterval = Setting<Duration>.duration(
        "connections.min-ping-interval", "DEVICERPC_MIN_PING_INTERVAL", .connections, default: .seconds(10),
        in: .zero ... .seconds(86400),
        "Clients that send PINGs more often than this, with nothing sent to them in between, are disconnected with "
            + "too_many_pings.")
    static let pingsWithoutCalls = Setting<Bool>.boolean(
        "connections.pings-without-calls", "DEVICERPC_PINGS_WITHOUT_CALLS", .connections, default: true,
        "Whether that holds on connections without calls too. false: only a PING every two hours there.")
    static let maximumConnectionIdle = Setting<Duration>.duration(
        "connections.max-idle", "DEVICERPC_MAX_CONNECTION_IDLE", .connections, default: .zero,
        in: .zero ... .seconds(604_800), "A connection without a call for this long is ended. 0s: never.")
    static let maximumConnectionAge = Setting<Duration>.duration(
        "connections.max-age", "DEVICERPC_MAX_CONNECTION_AGE", .connections, default: .zero,
        in: .zero ... .seconds(604_800),
        "A connection of this age, a tenth more or less, takes no more calls and ends with its last one, so that "
            + "clients spread over the replicas anew. 0s: never.")
    static let maximumConnectionAgeGrace = Setting<Duration>.duration(
        "connections.max-age-grace", "DEVICERPC_MAX_CONNECTION_AGE_GRACE", .connections, default: .zero,
        in: .zero ... .seconds(86400),
        "What still runs this long after the connection's time was up is ended: watches with UNAVAILABLE, the rest "
            + "with the connection. 0s: never.")

    static let connections: [SettingDescription] = [
        maximumHeaderBytes.description, maximumUnaryTimeout.description, compressFromBytes.description,
        keepaliveInterval.description, keepaliveTimeout.description, minimumPingInterval.description,
        pingsWithoutCalls.description, maximumConnectionIdle.description, maximumConnectionAge.description,
        maximumConnectionAgeGrace.description,
    ]
}
