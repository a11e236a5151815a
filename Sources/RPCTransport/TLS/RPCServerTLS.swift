/// How a server speaks TLS: 1.2 or 1.3, with ALPN `h2`.
///
/// The files are read at the start, which fails if they can't be used, and again whenever they change. A change that
/// can't be used is logged and told to the observer, and what was read before stays. Connections keep what they began
/// with.
public struct RPCServerTLS: Sendable, Equatable {
    /// Whether a client must show a certificate.
    public enum ClientCertificate: Sendable, Equatable {
        /// The handshake fails without one.
        case required
        /// Clients without one are let in, to prove who they are by other means; one that is shown must be good.
        case optional
    }

    /// PEM: the server's certificate, followed by those that link it to a root.
    public var certificateFile: String
    /// PEM: the private key of the first certificate, without a passphrase.
    public var keyFile: String
    /// PEM: the authorities whose client certificates are asked for and accepted; nil asks for none.
    public var clientAuthorityFile: String?
    public var clientCertificate: ClientCertificate = .required
    /// How often the files are looked at.
    public var reloadInterval: Duration = .seconds(5)

    public init(certificateFile: String, keyFile: String, clientAuthorityFile: String? = nil) {
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        self.clientAuthorityFile = clientAuthorityFile
    }

    /// Reads the files, so that what is wrong with them is known before anything is begun. Not for event loops.
    public func check() throws(RPCTLSError) { _ = try ServerTLSContext(self) }

    /// In the order of `FileFingerprint`s.
    var files: [String] { [self.certificateFile, self.keyFile] + (self.clientAuthorityFile.map { [$0] } ?? []) }
}
