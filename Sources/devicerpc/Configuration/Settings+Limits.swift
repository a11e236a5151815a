import RPCTransport

extension Settings {
    /// What a client may cost the server, and where each limit lives in the transport's configuration.
    enum Limits {
        typealias Key<Value> = any WritableKeyPath<RPCServerConfiguration, Value> & Sendable

        static let integers: [(key: Key<Int>, setting: Setting<Int>)] = [
            (
                \.maximumConnections,
                .integer(
                    "limits.max-connections", "DEVICERPC_MAX_CONNECTIONS", .limits, default: 20000, in: 1...1_000_000,
                    "Connections at a time; the next are closed at once.")
            ),
            (
                \.limits.maximumConnectionsPerAddress,
                .integer(
                    "limits.max-connections-per-address", "DEVICERPC_MAX_CONNECTIONS_PER_ADDRESS", .limits,
                    default: 16000, in: 1...1_000_000,
                    "Connections of one IPv4 address, or IPv6 network (/64), at a time.")
            ),
            (
                \.limits.maximumHandshakes,
                .integer(
                    "limits.max-handshakes", "DEVICERPC_MAX_HANDSHAKES", .limits, default: 4096, in: 1...1_000_000,
                    "Connections at a time whose handshake (TLS, preface, SETTINGS) isn't over. Beyond it, only addresses "
                        + "that have less than an equal share of them get one more.")
            ),
            (
                \.maximumConcurrentStreams,
                .integer(
                    "limits.max-streams", "DEVICERPC_MAX_STREAMS", .limits, default: 1000, in: 1...100_000,
                    "Calls at a time on a connection, as clients are told: they wait with what is more.")
            ),
            (
                \.maximumRunningHandlers,
                .integer(
                    "limits.max-running-handlers", "DEVICERPC_MAX_RUNNING_HANDLERS", .limits, default: 2000,
                    in: 1...1_000_000,
                    "Handlers at a time for a connection, those of cancelled calls included until they return. "
                        + "Calls beyond that are refused unprocessed.")
            ),
            (
                \.limits.maximumHeaderFields,
                .integer(
                    "limits.max-header-fields", "DEVICERPC_MAX_HEADER_FIELDS", .limits, default: 128, in: 16...10_000,
                    "Most fields in a header block.")
            ),
            (
                \.limits.maximumQueuedFrames,
                .integer(
                    "limits.max-queued-frames", "DEVICERPC_MAX_QUEUED_FRAMES", .limits, default: 5000,
                    in: 16...1_000_000,
                    "Frames other than DATA that may wait for a client that doesn't read.")
            ),
            (
                \.limits.maximumUnsentAcknowledgements,
                .integer(
                    "limits.max-unsent-acknowledgements", "DEVICERPC_MAX_UNSENT_ACKNOWLEDGEMENTS", .limits,
                    default: 128,
                    in: 8...100_000,
                    "Of these, answers to PING and SETTINGS.")
            ),
            (
                \.limits.maximumUnreadBytes,
                .integer(
                    "limits.max-unread-bytes", "DEVICERPC_MAX_UNREAD_BYTES", .limits, default: 16 << 20,
                    in: 65536...1_073_741_824,
                    "Response bytes of a connection that wait for the client to read them. Beyond it the client's "
                        + "next requests wait, and at eight times that the connection is closed.")
            ),
            (
                \.limits.maximumBufferedRequestBytes,
                .integer(
                    "limits.max-buffered-request-bytes", "DEVICERPC_MAX_BUFFERED_REQUEST_BYTES", .limits,
                    default: 16 << 20, in: 65536...1_073_741_824,
                    "Bytes of a connection's requests whose handlers have not begun. Beyond it, one of its calls at a "
                        + "time may send more than the 64 KiB that each may send at first.")
            ),
            (
                \.limits.maximumKeptBytes,
                .integer(
                    "limits.max-kept-bytes", "DEVICERPC_MAX_KEPT_BYTES", .limits, default: 1 << 30,
                    in: 1 << 20...1 << 40,
                    "Bytes of such requests and responses, and of calls that run (8 KiB each, their headers and their "
                        + "requests), of all connections together. Beyond it, addresses with more than an equal share "
                        + "of it lose those of their connections that have more than an equal part of that.")
            ),
            (
                \.limits.minimumBytesPerSecond,
                .integer(
                    "limits.min-bytes-per-second", "DEVICERPC_MIN_BYTES_PER_SECOND", .limits, default: 1024,
                    in: 1...1_048_576,
                    "The slowest that a client may send a request's message or take a response, once "
                        + "limits.request-timeout or limits.write-timeout is over.")
            ),
            (
                \.limits.resets.burst,
                .integer(
                    "limits.reset-burst", "DEVICERPC_RESET_BURST", .limits, default: 10000, in: 10...10_000_000,
                    "RST_STREAM frames of a client at once. Those of calls that were answered, or had lasted for "
                        + "100 ms, are free: gRPC clients reset in earnest, cancelled calls and late ones.")
            ),
            (
                \.limits.resets.perSecond,
                .integer(
                    "limits.resets-per-second", "DEVICERPC_RESETS_PER_SECOND", .limits, default: 1000,
                    in: 1...1_000_000,
                    "The same, per second.")
            ),
            (
                \.limits.unansweredResets.burst,
                .integer(
                    "limits.unanswered-reset-burst", "DEVICERPC_UNANSWERED_RESET_BURST", .limits, default: 2000,
                    in: 10...10_000_000,
                    "Calls at once that a client resets before they have an answer, within 100 ms or half of their "
                        + "time if that is shorter. Each call that is answered makes up for one.")
            ),
            (
                \.limits.unansweredResets.perSecond,
                .integer(
                    "limits.unanswered-resets-per-second", "DEVICERPC_UNANSWERED_RESETS_PER_SECOND", .limits,
                    default: 200, in: 1...1_000_000,
                    "The same, per second.")
            ),
            (
                \.limits.errors.burst,
                .integer(
                    "limits.error-burst", "DEVICERPC_ERROR_BURST", .limits, default: 500, in: 10...1_000_000,
                    "Invalid frames, and streams that the server has to reset for what the client does, at once.")
            ),
            (
                \.limits.errors.perSecond,
                .integer(
                    "limits.errors-per-second", "DEVICERPC_ERRORS_PER_SECOND", .limits, default: 50, in: 1...1_000_000,
                    "The same, per second.")
            ),
            (
                \.limits.controlFrames.burst,
                .integer(
                    "limits.control-frame-burst", "DEVICERPC_CONTROL_FRAME_BURST", .limits, default: 2000,
                    in: 100...1_000_000,
                    "Frames at once other than HEADERS, RST_STREAM and DATA with content: PING, SETTINGS, "
                        + "PRIORITY, WINDOW_UPDATE, empty and unknown ones. Three are free for each HEADERS or DATA "
                        + "that the server sends.")
            ),
            (
                \.limits.controlFrames.perSecond,
                .integer(
                    "limits.control-frames-per-second", "DEVICERPC_CONTROL_FRAMES_PER_SECOND", .limits, default: 500,
                    in: 1...1_000_000,
                    "The same, per second.")
            ),
        ]

        static let durations: [(key: Key<Duration>, setting: Setting<Duration>)] = [
            (
                \.handshakeTimeout,
                .duration(
                    "limits.handshake-timeout", "DEVICERPC_HANDSHAKE_TIMEOUT", .limits, default: .seconds(10),
                    in: .milliseconds(100) ... .seconds(600),
                    "Time for a new connection to finish TLS, send its preface and SETTINGS and acknowledge the "
                        + "server's, and for a header block to be completed.")
            ),
            (
                \.limits.requestTimeout,
                .duration(
                    "limits.request-timeout", "DEVICERPC_REQUEST_TIMEOUT", .limits, default: .seconds(30),
                    in: .milliseconds(100) ... .seconds(3600),
                    "How long a request's message may take to arrive; slower ones must keep to "
                        + "limits.min-bytes-per-second.")
            ),
            (
                \.writeTimeout,
                .duration(
                    "limits.write-timeout", "DEVICERPC_WRITE_TIMEOUT", .limits, default: .seconds(30),
                    in: .milliseconds(100) ... .seconds(3600),
                    "A client that takes nothing for this long, while there is something for it, is disconnected; "
                        + "a unary call whose answer it doesn't read is reset.")
            ),
            (
                \.limits.stalledStreamTimeout,
                .duration(
                    "limits.stalled-stream-timeout", "DEVICERPC_STALLED_STREAM_TIMEOUT", .limits,
                    default: .seconds(300),
                    in: .milliseconds(100) ... .seconds(86400),
                    "A streaming call whose client takes nothing of what waits for it for this long is reset. Its "
                        + "consumer may pause.")
            ),
        ]

        static let all = Self.integers.map(\.setting.description) + Self.durations.map(\.setting.description)
    }
}
