import NIOCore
import NIOSSL

/// What a client's handshakes are made with. Made once and used for all of its connections, since the authorities of a
/// system take milliseconds to read.
final class ClientTLSContext: Sendable {
    private let context: NIOSSLContext
    private let serverName: String?

    /// Reads files: not for event loops.
    init(_ tls: RPCClientTLS) throws(RPCTLSError) {
        var configuration = TLSConfiguration.makeClientConfiguration()
        TLSFiles.restrict(&configuration)
        if let file = tls.trustFile {
            configuration.trustRoots = .certificates(try TLSFiles.certificates(file, .authorities))
        }
        if let file = tls.certificateFile {
            guard let keyFile = tls.keyFile else {
                throw RPCTLSError(part: .key, file: file, problem: "is a certificate without the file of its key")
            }
            configuration.certificateChain = try TLSFiles.certificates(file, .certificate).map { .certificate($0) }
            configuration.privateKey = .privateKey(try TLSFiles.key(keyFile))
        }
        self.context = try TLSFiles.context(configuration, key: tls.keyFile ?? "the key")
        self.serverName = tls.serverName
    }

    /// Puts TLS in front of what the pipeline already has and will have. On the channel's event loop.
    ///
    /// - Parameters:
    ///   - host: what the channel connects to.
    ///   - handshake: succeeds once the server is known to be the one that was asked for and speaks h2. Fails with what
    ///     is wrong; the channel is closed then.
    func addHandlers(to channel: any Channel, host: String, handshake: EventLoopPromise<Void>) throws {
        let host = self.serverName ?? host
        let name = Self.isAddress(host) ? nil : host
        let handler: NIOSSLClientHandler
        do {
            handler = try NIOSSLClientHandler(context: self.context, serverHostname: name)
        } catch {
            let failure = TLSFailure(error, certificate: nil, name: host)
            handshake.fail(failure)
            throw failure
        }
        let gate = TLSGate(
            handler: handler, serverName: name,
            explain: { TLSFailure($0, certificate: handler.peerCertificate, name: host) },
            negotiated: { handshake.completeWith($0.map { _ in }) })
        try channel.pipeline.syncOperations.addHandlers([handler, gate])
    }

    /// Addresses are no server names (RFC 6066, section 3): the certificate is checked for the address itself.
    private static func isAddress(_ name: String) -> Bool {
        (try? SocketAddress(ipAddress: name, port: 0)) != nil
    }
}
