/// A call's unhappy end, as the peer sees it.
///
/// A server handler throws it to end the call with this status; a client call throws it when the call ended with a
/// status other than OK or never reached a server. Everything in it is meant for the peer.
public struct RPCError: Error, Sendable, Hashable, CustomStringConvertible {
    public var code: RPCCode
    /// For people. Percent-encoded on the wire, and cut to a length that fits the peers' usual header limits.
    public var message: String
    /// A serialized `google.rpc.Status` for `grpc-status-details-bin`, whose code and message equal these; or empty.
    public var details: [UInt8]
    /// Further trailers, e.g. `grpc-retry-pushback-ms`.
    public var metadata: Metadata
    /// The limit that the call's client ran into, if that is why; a server counts it.
    package var refusal: RPCRefusal?
    /// How far a client's call had come.
    package var progress: Progress

    package enum Progress: Sendable, Hashable {
        /// The server may have begun it.
        case maybeBegun
        /// The server says that it has not looked at it (REFUSED_STREAM, GOAWAY): it can be sent again without harm.
        case refused
        /// It never left.
        case notSent
    }

    public init(_ code: RPCCode, _ message: String, details: [UInt8] = [], metadata: Metadata = Metadata()) {
        self.code = code
        self.message = message
        self.details = details
        self.metadata = metadata
        self.progress = .maybeBegun
    }

    /// The same, counted as a refusal.
    package func counted(as refusal: RPCRefusal) -> RPCError {
        var error = self
        error.refusal = refusal
        return error
    }

    public var description: String { self.message.isEmpty ? self.code.name : "\(self.code.name): \(self.message)" }

    /// What a handler's error means to the peer: its own status, CANCELLED, or UNKNOWN with no word about internals.
    init(thrownByHandler error: any Error) {
        switch error {
        case let error as RPCError where error.code != .ok: self = error
        case is CancellationError: self = RPCError(.cancelled, "the call was cancelled")
        default: self = RPCError(.unknown, "the handler failed")
        }
    }

    /// What an error met while making a call means to the caller.
    init(thrownInCall error: any Error) {
        switch error {
        case let error as RPCError: self = error
        case is CancellationError: self = RPCError(.cancelled, "the call was cancelled")
        default: self = RPCError(.unavailable, "\(error)")
        }
    }
}
