import RPCTransport

/// Whom a call counts for where clients take turns: a caller that is known, wherever it calls from, or else its address.
enum Client: Hashable, Sendable {
    case caller(String)
    case address(ClientAddress)

    init(_ context: RPCContext) {
        switch context.identity as? Caller {
        case let caller? where caller.kind != .anyone: self = .caller(caller.name)
        default: self = .address(context.address)
        }
    }
}
