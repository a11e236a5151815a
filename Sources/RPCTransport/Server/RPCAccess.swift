/// A call that has ended, as an access log tells it.
public struct RPCAccess: Sendable {
    /// A path of this server, never one that a client made up.
    public var method: String
    public var code: RPCCode
    /// From its headers to its status.
    public var duration: Duration
    /// The address of the other side of the connection.
    public var peer: String
    /// What its client calls it; see `Metadata.requestID`.
    public var requestID: String?
}

extension Metadata {
    /// `x-request-id`: what a client, or a proxy, calls a call in its own logs. Nil unless it has 1 to 128 visible ASCII
    /// characters.
    public var requestID: String? {
        guard let id = self.first("x-request-id"), (1...128).contains(id.utf8.count),
            id.utf8.allSatisfy({ (33..<127).contains($0) })
        else { return nil }
        return id
    }
}
