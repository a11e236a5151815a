/// What a request's headers say, checked and taken apart once.
struct RequestHead: Sendable {
    /// The content types that a call may have; the response carries the same.
    enum ContentType: Sendable {
        case grpc
        case grpcProto
    }

    /// All fields; those of the protocol are marked reserved, so that the list doubles as the call's metadata.
    var list: HeaderList
    /// Where `:path` lies in the list's bytes.
    var path: Range<Int>
    var contentType: ContentType
    /// Of `grpc-timeout`, if there was one.
    var timeoutNanoseconds: Int64?
    /// How messages with the flag are compressed.
    var compression: RPCCompression?
    /// How the answer may be.
    var acceptedCompression: RPCCompression?
    /// The client speaks of encodings, so that it is told ours.
    var namesEncodings = false
    /// An earlier attempt of the same call has failed (`grpc-previous-rpc-attempts`, gRFC A6).
    var isRetry = false

    enum Outcome: Sendable {
        case call(RequestHead)
        case refuse(Refusal)
    }

    /// An answer given without looking at the method.
    struct Refusal: Sendable {
        var httpStatus: HTTPStatus
        var error: RPCError
        var contentType = ContentType.grpc
        /// The answer lists the encodings that would have been understood (compression.md).
        var listsEncodings = false
    }

    enum HTTPStatus: Sendable {
        case ok, badRequest, methodNotAllowed, unsupportedMediaType
    }

    static func parse(_ list: consuming HeaderList) -> Outcome {
        var list = list
        var isPost = false
        var path: Range<Int>?
        var contentType: ContentType?
        var timeout: Int64?
        var hasTimeout = false
        var compression: RPCCompression?
        var acceptedCompression: RPCCompression?
        var namesEncodings = false
        var isRetry = false
        var unsupportedEncoding: String?
        var badBinary = false
        var offset = 0
        list.markReserved { name, value in
            let valueStart = offset + name.count
            offset = valueStart + value.count
            switch name.count {
            case 2: return equal(name, "te")
            case 4: return equal(name, "host")
            case 5:
                if equal(name, ":path") {
                    path = valueStart..<offset
                    return true
                }
            case 7:
                if equal(name, ":method") {
                    isPost = equal(value, "POST")
                    return true
                }
            case 12:
                if equal(name, "content-type") {
                    contentType = Self.contentType(value)
                    return true
                }
                if equal(name, "grpc-timeout") {
                    hasTimeout = true
                    timeout = GRPCTimeout.parse(value)
                    return true
                }
            case 13:
                if equal(name, "grpc-encoding") {
                    namesEncodings = true
                    compression = RPCCompression(value)
                    if compression == nil, !equal(value, "identity") { unsupportedEncoding = lossyString(value) }
                    return true
                }
            case 20:
                if equal(name, "grpc-accept-encoding") {
                    namesEncodings = true
                    if acceptedCompression != .gzip {
                        acceptedCompression = RPCCompression.preferred(in: value) ?? acceptedCompression
                    }
                    return true
                }
            case 26:
                // Of use to the application too, and so no reserved one.
                if equal(name, "grpc-previous-rpc-attempts") { isRetry = !equal(value, "0") }
            default: break
            }
            if ReservedHeaders.contains(name) { return true }
            if hasSuffix(name, "-bin") { badBinary = badBinary || !Base64.isValidList(value) }
            return false
        }
        guard isPost else {
            return .refuse(
                Refusal(httpStatus: .methodNotAllowed, error: RPCError(.internal, "gRPC calls have the method POST")))
        }
        guard let contentType else {
            return .refuse(
                Refusal(
                    httpStatus: .unsupportedMediaType,
                    error: RPCError(.invalidArgument, "the content-type must be application/grpc or +proto")))
        }
        guard let path else {
            return .refuse(Refusal(httpStatus: .badRequest, error: RPCError(.internal, "there is no :path")))
        }
        if hasTimeout, timeout == nil {
            return .refuse(Refusal(httpStatus: .badRequest, error: RPCError(.internal, "malformed grpc-timeout")))
        }
        if badBinary {
            return .refuse(
                Refusal(httpStatus: .badRequest, error: RPCError(.internal, "a -bin header's value is not base64")))
        }
        if let unsupportedEncoding {
            return .refuse(
                Refusal(
                    httpStatus: .ok,
                    error: RPCError(.unimplemented, "grpc-encoding \(unsupportedEncoding.prefix(32)) is not supported"),
                    contentType: contentType, listsEncodings: true))
        }
        return .call(
            RequestHead(
                list: list, path: path, contentType: contentType, timeoutNanoseconds: timeout,
                compression: compression, acceptedCompression: acceptedCompression, namesEncodings: namesEncodings,
                isRetry: isRetry))
    }

    /// `application/grpc`, with `+proto` or without, with parameters or without. `application/grpc-web` is another
    /// protocol, and no other codec is spoken here.
    static func contentType(_ value: UnsafeBufferPointer<UInt8>) -> ContentType? {
        guard hasPrefix(value, "application/grpc") else { return nil }
        let rest = UnsafeBufferPointer(rebasing: value[16...])
        if rest.isEmpty || rest[0] == UInt8(ascii: ";") { return .grpc }
        if hasPrefix(rest, "+proto"), rest.count == 6 || rest[6] == UInt8(ascii: ";") { return .grpcProto }
        return nil
    }
}
