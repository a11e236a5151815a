import NIOCore

/// One call on the server's side: which frames may come and what they mean, which may go out and in what order.
///
/// Knows neither sockets nor tasks nor time. The peer's mistakes are thrown as the status that the call ends with;
/// whatever comes after the end is a harmless race (the peer hadn't seen the end yet) and changes nothing.
struct ServerStreamMachine {
    private enum RequestState {
        /// Headers have come, the method takes one message. Can transition to: one, ended.
        case none
        /// The one message has come. Can transition to: ended.
        case one(MessageAssembler.Message)
        /// The method takes any number of messages. Can transition to: ended.
        case many
        /// The peer said END_STREAM, or what it sends no longer matters.
        case ended
    }

    private enum ResponseState {
        /// Nothing was sent. Can transition to: headersSent, ended.
        case idle
        /// Response-Headers were sent, any number of messages may follow. Can transition to: ended.
        case headersSent
        /// Trailers were sent, or the stream is gone.
        case ended
    }

    private var request: RequestState
    private var response = ResponseState.idle
    private var assembler: MessageAssembler

    init(takesManyRequests: Bool, messageLimit: Int, compression: RPCCompression? = nil) {
        self.request = takesManyRequests ? .many : .none
        self.assembler = MessageAssembler(limit: messageLimit, side: "server", compression: compression)
    }

    var isResponseEnded: Bool {
        switch self.response {
        case .idle, .headersSent: false
        case .ended: true
        }
    }

    var hasSentHeaders: Bool {
        switch self.response {
        case .idle: false
        case .headersSent, .ended: true
        }
    }

    /// A message of many has begun and isn't whole.
    var isInMessage: Bool {
        switch self.request {
        case .many: !self.assembler.isAtBoundary
        case .none, .one, .ended: false
        }
    }

    // MARK: Request

    /// Takes messages off a chunk of a stream of many; nil when the chunk is used up.
    mutating func nextMessage(from chunk: inout ByteBuffer) throws(RPCError) -> MessageAssembler.Message? {
        switch self.request {
        case .many: return try self.assembler.next(from: &chunk)
        case .none, .one, .ended: return nil
        }
    }

    mutating func takeCreditOfIncompleteMessage() -> Int { self.assembler.takeCreditOfIncompleteMessage() }

    /// Takes a chunk of a call that has exactly one request message. All of its bytes can be given back to the peer at
    /// once: what is kept is bounded by the message limit.
    mutating func receivedUnaryBytes(_ chunk: ByteBuffer) throws(RPCError) {
        var chunk = chunk
        while true {
            switch self.request {
            case .none:
                guard let message = try self.assembler.next(from: &chunk) else { return }
                self.request = .one(message)
            case .one:
                // Cardinality (statuscodes.md): the second message need not be whole to be one too many.
                guard chunk.readableBytes > 0 else { return }
                throw RPCError(.unimplemented, "the method takes one message, but more were sent")
            case .many, .ended: return
            }
        }
    }

    enum OnRequestEnd {
        /// Run the handler with the one message.
        case start(MessageAssembler.Message)
        /// The running handler sees the end of its messages.
        case endMessages
        /// The call is over anyway.
        case ignore
    }

    /// END_STREAM from the peer.
    mutating func receivedEnd() throws(RPCError) -> OnRequestEnd {
        switch self.request {
        case .none:
            self.request = .ended
            throw self.assembler.isAtBoundary
                ? RPCError(.unimplemented, "the method takes one message, but none was sent") : Self.truncated
        case .one(let message):
            self.request = .ended
            return .start(message)
        case .many:
            self.request = .ended
            guard self.assembler.isAtBoundary else { throw Self.truncated }
            return .endMessages
        case .ended: return .ignore
        }
    }

    private static var truncated: RPCError { RPCError(.internal, "the request ended in the middle of a message") }

    // MARK: Response

    /// True if Response-Headers are to be sent now.
    mutating func sendHeaders() -> Bool {
        switch self.response {
        case .idle:
            self.response = .headersSent
            return true
        case .headersSent, .ended: return false
        }
    }

    enum OnSendStatus {
        /// One header block says it all.
        case trailersOnly
        /// Trailers follow what was sent.
        case trailers
        /// The call has ended already.
        case ignore
    }

    /// The call ends with a status.
    mutating func sendStatus() -> OnSendStatus {
        self.request = .ended
        defer { self.response = .ended }
        switch self.response {
        case .idle: return .trailersOnly
        case .headersSent: return .trailers
        case .ended: return .ignore
        }
    }

    /// The stream is gone: reset, or its connection lost. True if the call was under way.
    mutating func closed() -> Bool {
        self.request = .ended
        defer { self.response = .ended }
        switch self.response {
        case .idle, .headersSent: return true
        case .ended: return false
        }
    }
}
