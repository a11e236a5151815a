import NIOCore
import NIOSSL
import Synchronization

/// What a server's handshakes are made with; follows its files.
final class ServerTLSContext: Sendable {
    private struct Loaded {
        var context: NIOSSLContext
        /// Of the files as they were when they were read.
        var fingerprints: [FileFingerprint]
        /// When the first of the server's certificates ends, in seconds since 1970.
        var notAfter: Int64
    }

    enum Reload: Sendable, Equatable {
        case unchanged
        case reloaded(notAfter: Int64)
        /// What was loaded before stays in use, and it is tried again next time. Said once for each change.
        case failed(RPCTLSError)
    }

    /// What could not be used, and was said.
    private struct Rejected: Equatable {
        var fingerprints: [FileFingerprint]
        var error: RPCTLSError
    }

    private let tls: RPCServerTLS
    private let loaded: Mutex<Loaded>
    private let rejected = Mutex<Rejected?>(nil)

    init(_ tls: RPCServerTLS) throws(RPCTLSError) {
        self.tls = tls
        self.loaded = Mutex(try Self.load(tls))
    }

    var notAfter: Int64 { self.loaded.withLock { $0.notAfter } }

    /// Reads files: not for event loops.
    func reloadIfChanged() -> Reload {
        let fingerprints = self.tls.files.map { FileFingerprint($0) }
        guard self.loaded.withLock({ $0.fingerprints != fingerprints }) else { return .unchanged }
        do throws(RPCTLSError) {
            let loaded = try Self.load(self.tls)
            self.loaded.withLock { $0 = loaded }
            self.rejected.withLock { $0 = nil }
            return .reloaded(notAfter: loaded.notAfter)
        } catch {
            let rejected = Rejected(fingerprints: fingerprints, error: error)
            let isSaid = self.rejected.withLock { last in
                defer { last = rejected }
                return last == rejected
            }
            return isSaid ? .unchanged : .failed(error)
        }
    }

    /// Puts TLS in front of what the pipeline already has and will have. On the channel's event loop.
    ///
    /// - Parameter identified: is told of the client's certificate, if it showed one, before any of its bytes.
    func addHandlers(to channel: any Channel, identified: @escaping (PeerCertificate) -> Void) throws {
        let handler = NIOSSLServerHandler(context: self.loaded.withLock { $0.context })
        let gate = TLSGate(handler: handler) { result in
            if case .success(let certificate?) = result { identified(certificate) }
        }
        try channel.pipeline.syncOperations.addHandlers([handler, gate])
    }

    private static func load(_ tls: RPCServerTLS) throws(RPCTLSError) -> Loaded {
        // Looked at before they are read: what changes meanwhile is seen as a change next time.
        let fingerprints = tls.files.map { FileFingerprint($0) }
        let chain = try TLSFiles.certificates(tls.certificateFile, .certificate)
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(try TLSFiles.key(tls.keyFile)))
        TLSFiles.restrict(&configuration)
        if let file = tls.clientAuthorityFile {
            configuration.trustRoots = .certificates(try TLSFiles.certificates(file, .authorities))
            switch tls.clientCertificate {
            case .required: configuration.certificateVerification = .noHostnameVerification
            case .optional: configuration.certificateVerification = .optionalVerification
            }
            configuration.sendCANameList = true
        }
        return Loaded(
            context: try TLSFiles.context(configuration, key: tls.keyFile), fingerprints: fingerprints,
            notAfter: Int64(chain.first?.notValidAfter ?? 0))
    }
}
