/// What a session has seen, in order.
enum HTTP2Event {
    /// A whole header block. `isOversized`: fields past the limits were dropped.
    case headers(HTTP2Stream, HeaderList, endStream: Bool, isOversized: Bool)
    /// Payload, as a place in the buffer handed to `receive`.
    case data(HTTP2Stream, offset: Int, count: Int)
    /// END_STREAM on a DATA frame; follows its bytes.
    case end(HTTP2Stream)
    /// The stream is gone. The code is NO_ERROR for a stream that ran its course.
    case closed(HTTP2Stream, errorCode: UInt32)
    case ping
    case pingAcknowledged(opaque: UInt64)
    case settings
    case goAway(lastStreamID: Int32, errorCode: UInt32, debugData: [UInt8])
}

/// Why a session cannot go on.
enum HTTP2SessionError: Error, Equatable {
    /// What was read is no HTTP/2 at all (bad connection preface).
    case notHTTP2
    /// The peer broke a rule of ours.
    case refused(RPCRefusal)
    /// nghttp2's own word for what went wrong.
    case failed(code: Int32)
}
