/// The limits and settings of one HTTP/2 connection, as its session needs them.
struct HTTP2Configuration: Sendable {
    /// SETTINGS_MAX_CONCURRENT_STREAMS, advertised by a server.
    var maximumConcurrentStreams: UInt32 = 1000
    /// SETTINGS_INITIAL_WINDOW_SIZE: bytes that a stream may have under way to us, unread.
    var streamWindowBytes = 65535
    /// The same for the whole connection; given back on receipt, so that a slow stream holds up no other.
    var connectionWindowBytes = 1 << 20
    /// SETTINGS_MAX_HEADER_LIST_SIZE. nghttp2 doesn't enforce it; the session does.
    var headerListBytes = 16384
    /// Most fields in a header block.
    var headerFields = 128
    /// CONTINUATION frames of a header block: as many as the largest one may need, in frames of 16 KiB, and 8 more.
    var continuations: Int { 8 + self.headerListBytes / 16384 }
    /// What the other side is put up with.
    var frameBudget = FrameBudget.Configuration()
    /// PING and SETTINGS acknowledgements that may wait to be sent before the peer is taken for a flooder.
    var unsentAcknowledgements = 128
    /// Frames that may wait to be sent, DATA not counted, before the peer is taken for one that doesn't read.
    var queuedFrames = 5000
}

/// HTTP/2 error codes (RFC 9113, section 7) that this side sends or tells apart.
enum HTTP2ErrorCode {
    static let noError: UInt32 = 0
    static let protocolError: UInt32 = 1
    static let internalError: UInt32 = 2
    static let refusedStream: UInt32 = 7
    static let cancel: UInt32 = 8
    static let enhanceYourCalm: UInt32 = 11
}
