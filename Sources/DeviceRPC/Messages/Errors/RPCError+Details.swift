import NIOCore
public import RPCTransport
public import SagaRuntime

// The errors of the contract as statuses with `google.rpc.Status` in `grpc-status-details-bin`.

extension RPCError {
    /// The trailer by which a server tells when to retry (gRFC A6); negative: don't.
    public static let pushbackTrailer = "grpc-retry-pushback-ms"
    /// Longer messages are cut, since clients accept no more than 8 KiB of trailers by default.
    private static let maximumMessageBytes = 1024
    /// As `grpc-message` carries it, percent-encoded. The transport would cut what is longer, and the two messages that a
    /// client gets would differ.
    private static let maximumEncodedBytes = 1536

    /// - Parameters:
    ///   - metadata: for `ErrorInfo.metadata`.
    ///   - details: further details, behind the `ErrorInfo`.
    ///   - retry: what the client is told about sending the call again.
    public init(
        _ reason: ErrorReason, _ message: String, metadata: [String: String] = [:], details: [PackedMessage] = [],
        retry: RetryAdvice = .unsaid
    ) {
        let message = message.cut(toBytes: Self.maximumMessageBytes, encoded: Self.maximumEncodedBytes)
        let info = GoogleRPC.ErrorInfo.with {
            $0.reason = reason.name
            $0.domain = ErrorReason.domain
            $0.metadata = metadata
        }
        var status = GoogleRPC.Status.with {
            $0.code = Int32(reason.code.rawValue)
            $0.message = message
            $0.details = [PackedMessage(packing: info)] + details
        }
        var trailers = Metadata()
        switch retry {
        case .unsaid: break
        case .never: trailers.append(Self.pushbackTrailer, "-1")
        case .after(let delay):
            status.details.append(
                PackedMessage(packing: GoogleRPC.RetryInfo.with { $0.retryDelay = ProtobufDuration(delay) }))
            trailers.append(Self.pushbackTrailer, String(max(0, delay.wholeMicroseconds / 1000)))
        }
        self.init(
            reason.code, message, details: Array(status.encoded().readableBytesView), metadata: trailers)
    }

    /// INVALID_FIELD, with every violation.
    public init(_ invalid: InvalidRequest) {
        let badRequest = GoogleRPC.BadRequest.with { $0.fieldViolations = invalid.violations }
        self.init(.invalidField, invalid.description, details: [PackedMessage(packing: badRequest)])
    }

    /// Bytes that are not the message they should be: INTERNAL (grpc/doc/statuscodes.md). A NUL is a character like any other
    /// to protobuf, and an invalid value to us: INVALID_FIELD. So are marks.
    public init(_ error: MessageDecodingError) {
        let invalidity: String? =
            switch error.reason {
            case .nul: "must not hold a NUL character"
            case .tooManyMarks: "must not have more than 30 combining marks in a row"
            default: nil
            }
        if let invalidity {
            let violation = GoogleRPC.FieldViolation.with {
                $0.field = error.fieldPath
                $0.explanation = invalidity
            }
            self.init(InvalidRequest([violation]))
        } else {
            self.init(.internal, error.description)
        }
        switch error.reason {
        case .tooDeep, .tooManyFields, .tooMuchMemory, .tooManyMarks: self.refusal = .messageTooComplex
        case .truncated, .malformedNumber, .malformedTag, .group, .wireTypeMismatch, .invalidUTF8, .nul,
            .repeatedMessage:
            break
        }
    }

    /// NOT_FOUND: not there, or not for this caller.
    public static func notFound(_ type: (some ProtobufMessage).Type, _ name: String) -> RPCError {
        let resource = GoogleRPC.ResourceInfo.with {
            $0.resourceType = type.fullName
            $0.resourceName = name
        }
        let kind = type.fullName.split(separator: ".").last.map { $0.lowercased() } ?? "resource"
        return RPCError(.notFound, "no such \(kind): \(name)", details: [PackedMessage(packing: resource)])
    }

    /// OVERLOADED: nothing has happened; the same request may be sent again after `retryAfter`.
    public static func overloaded(retryAfter: Duration) -> RPCError {
        RPCError(.overloaded, "too many sagas are in flight", retry: .after(retryAfter))
    }

    /// The end of a saga that did not complete, for the caller that waited for it. A new try needs a new request_id.
    ///
    /// - Parameters:
    ///   - reason: `SagaFailure.reason`; decides the code of a saga that is undone.
    ///   - isParked: not everything is undone: an operator is needed.
    ///   - obstacles: why steps of a parked saga could not be undone, by step; empty if it parked on its way forward.
    public static func sagaFailed(
        _ sagaID: SagaID, step: String, reason: String, message: String, isParked: Bool,
        obstacles: [(step: String, error: String)] = []
    ) -> RPCError {
        var metadata = ["saga_id": sagaID.rawValue, "step": step]
        guard !isParked else {
            metadata["failure_reason"] = reason
            let why = obstacles.map { "\($0.step) could not be undone (\($0.error)); " }.joined()
            return RPCError(
                .parked, "\(sagaID) is parked and needs an operator: \(why)it failed in \(step): \(message)",
                metadata: metadata, retry: .never)
        }
        return RPCError(
            .undone(reason), "\(sagaID) failed in \(step) and is undone: \(message)", metadata: metadata,
            retry: .never)
    }

    // MARK: Reading, for clients

    /// The packed `google.rpc.Status`, if there is one that can be read.
    public var status: GoogleRPC.Status? {
        guard !self.details.isEmpty else { return nil }
        return try? GoogleRPC.Status(decoding: ByteBuffer(bytes: self.details), limits: .response)
    }

    /// `ErrorInfo` of this service.
    public var errorInfo: GoogleRPC.ErrorInfo? {
        let info = self.status?.detail(GoogleRPC.ErrorInfo.self)
        return info?.domain == ErrorReason.domain ? info : nil
    }

    /// Every field that the server found wrong.
    public var fieldViolations: [GoogleRPC.FieldViolation] {
        self.status?.detail(GoogleRPC.BadRequest.self)?.fieldViolations ?? []
    }

    /// What the server said about sending the call again.
    public var retryAdvice: RetryAdvice {
        guard let text = self.metadata.first(Self.pushbackTrailer) else { return .unsaid }
        // As the transport reads it: what is no number of up to 31 bits allows nothing.
        guard text.utf8.allSatisfy({ (48...57).contains($0) }), let milliseconds = Int32(text) else { return .never }
        return .after(.milliseconds(milliseconds))
    }
}

/// What a server says about sending a failed call again, in the trailer `grpc-retry-pushback-ms` (gRFC A6).
public enum RetryAdvice: Sendable, Hashable {
    /// Nothing: the client's own policy decides.
    case unsaid
    case never
    case after(Duration)
}

extension String {
    /// The longest beginning that ends between scalars and has at most `limit` bytes, and `encodedLimit` once it is
    /// percent-encoded; with an ellipsis if it is cut.
    fileprivate func cut(toBytes limit: Int, encoded encodedLimit: Int) -> String {
        guard self.utf8.count > limit || self.utf8.reduce(0, { $0 + Self.encodedWidth($1) }) > encodedLimit else {
            return self
        }
        var result = String.UnicodeScalarView()
        // The ellipsis is one scalar of three bytes.
        var (count, encoded) = (3, 9)
        for scalar in self.unicodeScalars {
            count += UTF8.width(scalar)
            encoded += String(scalar).utf8.reduce(0) { $0 + Self.encodedWidth($1) }
            if count > limit || encoded > encodedLimit { break }
            result.append(scalar)
        }
        return String(result) + "…"
    }

    private static func encodedWidth(_ byte: UInt8) -> Int {
        (0x20...0x7E).contains(byte) && byte != UInt8(ascii: "%") ? 1 : 3
    }
}
