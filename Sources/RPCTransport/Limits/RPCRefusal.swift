/// Why a server turned a client away: the rule that was broken. The raw value is the debug text of the GOAWAY and the
/// label of the metric.
public enum RPCRefusal: String, Sendable, CaseIterable {
    // Connections that are not taken.
    case tooManyConnections = "too_many_connections"
    case tooManyConnectionsOfAddress = "too_many_connections_of_address"
    case tooManyHandshakes = "too_many_handshakes"
    /// This process has no descriptor, or the system no memory, to take one more. Counted for each attempt.
    case outOfDescriptors = "out_of_descriptors"

    // Connections that are closed.
    case notHTTP2 = "not_http2"
    case slowHandshake = "slow_handshake"
    case slowHeaders = "slow_headers"
    case slowReader = "slow_reader"
    case tooMuchUnread = "too_much_unread"
    /// All connections together have the server keep too much, and this one more than its share.
    case tooMuchKept = "too_much_kept"
    case tooManyQueuedFrames = "too_many_queued_frames"
    case tooManyPings = "too_many_pings"
    case tooManyControlFrames = "too_many_control_frames"
    case tooManyResets = "too_many_resets"
    case tooManyUnansweredResets = "too_many_unanswered_resets"
    case tooManyErrors = "too_many_errors"
    case headerBlockTooLarge = "header_block_too_large"
    case tooManyContinuations = "too_many_continuations"
    /// A violation of HTTP/2 itself, for which nghttp2 closes the connection.
    case protocolError = "protocol_error"

    // Calls that are ended, while their connection goes on.
    case tooManyHandlers = "too_many_handlers"
    case headersTooLarge = "headers_too_large"
    case messageTooLarge = "message_too_large"
    /// A compressed message that is larger than it may be once it is inflated.
    case messageInflates = "message_inflates"
    /// A message that would take far more memory than bytes when decoded, or is nested too deeply.
    case messageTooComplex = "message_too_complex"
    case slowRequest = "slow_request"
    case slowResponse = "slow_response"

    // Calls that have to wait.
    /// The connection's requests that are not whole take too much memory.
    case tooMuchBuffered = "too_much_buffered"
    /// Other messages are being inflated.
    case tooManyInflations = "too_many_inflations"
    /// Others' lists, or its own, are being read.
    case tooManyReads = "too_many_reads"
    /// Signatures of other tokens are being checked.
    case tooManyTokens = "too_many_tokens"

    /// What it cost the client.
    public enum Scope: String, Sendable {
        case connection, call
        /// Time.
        case delay
    }

    public var scope: Scope {
        switch self {
        case .tooManyConnections, .tooManyConnectionsOfAddress, .tooManyHandshakes, .outOfDescriptors, .notHTTP2,
            .slowHandshake, .slowHeaders, .slowReader, .tooMuchUnread, .tooMuchKept, .tooManyQueuedFrames,
            .tooManyPings,
            .tooManyControlFrames,
            .tooManyResets, .tooManyUnansweredResets, .tooManyErrors, .headerBlockTooLarge, .tooManyContinuations,
            .protocolError:
            .connection
        case .tooManyHandlers, .headersTooLarge, .messageTooLarge, .messageInflates, .messageTooComplex, .slowRequest,
            .slowResponse:
            .call
        case .tooMuchBuffered, .tooManyInflations, .tooManyReads, .tooManyTokens: .delay
        }
    }
}
