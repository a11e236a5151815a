import NIOCore

/// One call on the client's side: takes the response apart and says how the call ended.
struct ClientStreamMachine {
    private enum State {
        /// Waiting for Response-Headers or Trailers-Only. Can transition to: open, ended.
        case waiting
        /// Response-Headers have come. Can transition to: ended.
        case open
        /// The call has its status.
        case ended
    }

    private var state = State.waiting
    private var assembler: MessageAssembler
    private let expectsOneResponse: Bool
    private var responses = 0
    private var informationalResponses = 0

    /// Each costs nothing to keep, but a server that says nothing else keeps us busy.
    private static let mostInformationalResponses = 32

    init(expectsOneResponse: Bool, messageLimit: Int) {
        self.expectsOneResponse = expectsOneResponse
        self.assembler = MessageAssembler(limit: messageLimit, side: "client")
    }

    enum OnHeaders {
        /// The response's initial metadata.
        case initial(Metadata)
        /// The call ended with OK and this trailing metadata.
        case succeeded(Metadata)
        /// The call ended badly.
        case failed(RPCError)
        /// An informational response, or something after the end.
        case ignore
    }

    mutating func receivedHeaders(_ list: HeaderList, endStream: Bool) -> OnHeaders {
        switch self.state {
        case .waiting:
            let head = ResponseFields(list)
            if let status = head.httpStatus, (100..<200).contains(status), !endStream {
                self.informationalResponses += 1
                guard self.informationalResponses > Self.mostInformationalResponses else { return .ignore }
                return .failed(self.fail(RPCError(.internal, "too many informational responses")))
            }
            guard head.httpStatus == 200, head.isGRPC else {
                self.state = .ended
                // A status that the server did give counts more than how it was dressed.
                if endStream, let error = head.error, error.code != .ok { return .failed(error) }
                let status = head.httpStatus ?? 0
                let code = status == 200 ? RPCCode.unknown : StatusMapping.code(forHTTPStatus: status)
                return .failed(RPCError(code, "HTTP status \(status), content-type \(head.contentType.prefix(64))"))
            }
            guard endStream else {
                self.state = .open
                self.assembler.compression = head.compression
                return .initial(head.metadata)
            }
            return self.ended(with: head)
        case .open:
            guard endStream else {
                self.state = .ended
                return .failed(RPCError(.internal, "headers in the middle of a response"))
            }
            guard self.assembler.isAtBoundary else {
                self.state = .ended
                return .failed(RPCError(.internal, "the response ended in the middle of a message"))
            }
            return self.ended(with: ResponseFields(list))
        case .ended: return .ignore
        }
    }

    private mutating func ended(with fields: ResponseFields) -> OnHeaders {
        self.state = .ended
        guard let error = fields.error else {
            return .failed(RPCError(.unknown, "the response has no grpc-status", metadata: fields.metadata))
        }
        guard error.code == .ok else { return .failed(error) }
        if self.expectsOneResponse, self.responses != 1 {
            return .failed(RPCError(.unimplemented, "one response was expected, there was none"))
        }
        return .succeeded(fields.metadata)
    }

    /// Takes messages off a chunk; nil when it is used up.
    mutating func nextMessage(from chunk: inout ByteBuffer) throws(RPCError) -> MessageAssembler.Message? {
        switch self.state {
        case .open: break
        case .waiting: throw self.fail(RPCError(.internal, "data before the response's headers"))
        case .ended: return nil
        }
        do throws(RPCError) {
            guard let message = try self.assembler.next(from: &chunk) else { return nil }
            self.responses += 1
            if self.expectsOneResponse, self.responses > 1 {
                throw RPCError(.unimplemented, "one response was expected, there were more")
            }
            return message
        } catch { throw self.fail(error) }
    }

    mutating func takeCreditOfIncompleteMessage() -> Int { self.assembler.takeCreditOfIncompleteMessage() }

    private mutating func fail(_ error: RPCError) -> RPCError {
        self.state = .ended
        return error
    }

    /// END_STREAM on a DATA frame: no trailers will come. Nil if the call had ended before.
    mutating func receivedEndOfData() -> RPCError? {
        switch self.state {
        case .waiting, .open:
            return self.fail(RPCError(.internal, "the server closed the stream without trailers"))
        case .ended: return nil
        }
    }

    /// The stream was closed with this HTTP/2 error code. Nil if the call had ended before.
    mutating func closed(errorCode: UInt32) -> RPCError? {
        switch self.state {
        case .waiting, .open:
            var error = RPCError(
                StatusMapping.code(forReset: errorCode), "the stream was reset with HTTP/2 error code \(errorCode)")
            // REFUSED_STREAM: not processed (RFC 9113, section 8.7). Who has answered has processed it.
            if errorCode == HTTP2ErrorCode.refusedStream, case .waiting = self.state { error.progress = .refused }
            return self.fail(error)
        case .ended: return nil
        }
    }

    /// This side gave up, or the connection is gone. False if the call had ended before.
    mutating func abandoned() -> Bool {
        defer { self.state = .ended }
        switch self.state {
        case .waiting, .open: return true
        case .ended: return false
        }
    }
}

/// The fields of a response's header blocks that the protocol knows.
private struct ResponseFields {
    var httpStatus: Int?
    var isGRPC = false
    var contentType = ""
    /// Of `grpc-encoding`; nil for identity, and for what we don't know: a compressed message is an error then.
    var compression: RPCCompression?
    var metadata: Metadata
    private var status: [UInt8]?
    private var message = ""
    private var details: [UInt8] = []

    init(_ list: HeaderList) {
        var list = list
        var httpStatus: Int?
        var isGRPC = false
        var contentType = ""
        var compression: RPCCompression?
        var status: [UInt8]?
        var message = ""
        var details: [UInt8] = []
        list.markReserved { name, value in
            switch name.count {
            case 7 where equal(name, ":status"): httpStatus = Int(lossyString(value))
            // Several are no status, whatever they say.
            case 11 where equal(name, "grpc-status"): status = (status.map { $0 + [UInt8(ascii: ",")] } ?? []) + value
            case 12 where equal(name, "grpc-message"): message = StatusMessage.decode(value)
            case 12 where equal(name, "content-type"):
                isGRPC = Self.isGRPC(value)
                contentType = lossyString(value)
            case 13 where equal(name, "grpc-encoding"): compression = RPCCompression(value)
            case 23 where equal(name, "grpc-status-details-bin"): details = Base64.decode(value) ?? []
            default: return ReservedHeaders.contains(name)
            }
            return true
        }
        self.httpStatus = httpStatus
        self.isGRPC = isGRPC
        self.contentType = contentType
        self.compression = compression
        self.status = status
        self.message = message
        self.details = details
        self.metadata = Metadata(list)
    }

    /// `application/grpc`, with `+proto` and the like or without, with parameters or without. `application/grpc-web` is
    /// another protocol.
    private static func isGRPC(_ contentType: UnsafeBufferPointer<UInt8>) -> Bool {
        guard hasPrefix(contentType, "application/grpc") else { return false }
        return contentType.count == 16 || [UInt8(ascii: "+"), UInt8(ascii: ";")].contains(contentType[16])
    }

    /// The status that `grpc-status` gives, OK too; an unknown number, or none, is UNKNOWN. Nil without a `grpc-status`.
    var error: RPCError? {
        guard let status else { return nil }
        let isNumber = status.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        let number = isNumber ? Int(String(decoding: status, as: UTF8.self)) : nil
        guard let code = number.flatMap(RPCCode.init(rawValue:)) else {
            let said = "grpc-status \(String(decoding: status.prefix(32), as: UTF8.self))"
            let message = self.message.isEmpty ? said : "\(said): \(self.message)"
            return RPCError(.unknown, message, details: self.details, metadata: self.metadata)
        }
        return RPCError(code, self.message, details: self.details, metadata: self.metadata)
    }
}
