/// What a call's end means if the server gave no gRPC status.
enum StatusMapping {
    /// An HTTP status (grpc/doc/http-grpc-status-mapping.md).
    static func code(forHTTPStatus status: Int) -> RPCCode {
        switch status {
        case 400: .internal
        case 401: .unauthenticated
        case 403: .permissionDenied
        case 404: .unimplemented
        case 429, 502, 503, 504: .unavailable
        default: .unknown
        }
    }

    /// An HTTP/2 error code in RST_STREAM (PROTOCOL-HTTP2.md, Errors).
    static func code(forReset errorCode: UInt32) -> RPCCode {
        switch errorCode {
        case 7: .unavailable  // REFUSED_STREAM
        case 8: .cancelled  // CANCEL
        case 11: .resourceExhausted  // ENHANCE_YOUR_CALM
        case 12: .permissionDenied  // INADEQUATE_SECURITY
        default: .internal
        }
    }
}
