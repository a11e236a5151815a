/// A file that TLS needs can't be used.
public struct RPCTLSError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What the file is for.
    public enum Part: Sendable, Equatable {
        case certificate
        case key
        /// The authorities that the other side's certificate must come from.
        case authorities
    }

    public var part: Part
    public var file: String
    /// For people; holds nothing of the file's contents.
    public var problem: String

    public var description: String { "\(self.file) \(self.problem)" }
}

/// Why a connection is no good after a handshake that succeeded.
struct WrongServer: Error, CustomStringConvertible {
    var name: String
    var description: String { "the certificate is not one of \(self.name)" }
}

struct CertificateEnded: Error, CustomStringConvertible {
    var description: String { "the other side's certificate has expired" }
}

struct NoCommonProtocol: Error, CustomStringConvertible {
    var description: String { "the other side does not speak h2 (ALPN)" }
}
