/// How a client speaks TLS: 1.2 or 1.3, with ALPN `h2`.
public struct RPCClientTLS: Sendable, Equatable {
    /// PEM: the authorities that the server's certificate must come from; nil means the system's.
    public var trustFile: String?
    /// PEM: the certificate that the client shows to a server that asks for one; needs `keyFile`.
    public var certificateFile: String?
    /// PEM: the private key of the first certificate, without a passphrase.
    public var keyFile: String?
    /// The name that is asked for (SNI) and that the certificate must carry; nil means the host that is connected to. For
    /// a host that is an address, the certificate must carry the address.
    public var serverName: String?

    public init(
        trustFile: String? = nil, certificateFile: String? = nil, keyFile: String? = nil, serverName: String? = nil
    ) {
        self.trustFile = trustFile
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        self.serverName = serverName
    }

    /// Reads the files, so that what is wrong with them is known before the first call. Not for event loops.
    public func check() throws(RPCTLSError) { _ = try ClientTLSContext(self) }
}
