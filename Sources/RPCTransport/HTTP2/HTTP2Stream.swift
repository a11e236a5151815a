/// What a session keeps for a stream. The server and the client hang their calls on it by subclassing.
///
/// `@unchecked Sendable`: all fields are read and written on the connection's event loop only; other threads merely
/// hold references.
class HTTP2Stream: @unchecked Sendable {
    /// How this side's half of the stream ends.
    enum End {
        /// More may be queued.
        case open
        /// END_STREAM behind the queued messages (a client's request).
        case endStream
        /// Trailers behind the queued messages; nil is the bare `grpc-status: 0`.
        case trailers(HeaderList?)
        /// Handed to nghttp2.
        case submitted
    }

    /// Zero until a client's request has been submitted.
    @exclusivity(unchecked) final var id: Int32
    /// Where the session keeps this stream; -1 if it doesn't.
    @exclusivity(unchecked) final var slot = -1
    @exclusivity(unchecked) final var outbound = OutboundMessageQueue()
    @exclusivity(unchecked) final var end = End.open
    /// A data provider is attached, i.e. `outbound` will be read.
    @exclusivity(unchecked) final var hasProvider = false
    /// The provider has run dry and must be woken by `resume`.
    @exclusivity(unchecked) final var isDeferred = false
    /// The peer has said END_STREAM.
    @exclusivity(unchecked) final var isRemoteEnded = false
    /// nghttp2 knows the stream no longer.
    @exclusivity(unchecked) final var isClosed = false
    /// The request's HEADERS went out (client).
    @exclusivity(unchecked) final var areHeadersSent = false
    /// Whether somebody waits for `sentCharge`.
    @exclusivity(unchecked) final var reportsProgress = false
    /// What was charged for messages read from `outbound` since it was last asked for.
    @exclusivity(unchecked) final var sentCharge = 0
    /// Bytes ever read from `outbound`.
    @exclusivity(unchecked) final var sentTotal = 0

    init(id: Int32 = 0) { self.id = id }
}
