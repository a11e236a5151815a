import Glibc
import NIOCore
import NIOSSL

/// Reads PEM files, and says which one is no good and why.
enum TLSFiles {
    static func certificates(
        _ file: String, _ part: RPCTLSError.Part
    ) throws(RPCTLSError) -> [NIOSSLCertificate] {
        try Self.checkReadable(file, part)
        do {
            let certificates = try NIOSSLCertificate.fromPEMFile(file)
            if !certificates.isEmpty {
                try Self.checkNotOver(certificates, file, part)
                return certificates
            }
        } catch let error as RPCTLSError {
            throw error
        } catch {}
        throw RPCTLSError(part: part, file: file, problem: "holds no certificate in PEM format")
    }

    /// The certificate that is shown, or all of the authorities: nobody would accept it, or nobody be accepted.
    private static func checkNotOver(
        _ certificates: [NIOSSLCertificate], _ file: String, _ part: RPCTLSError.Part
    ) throws(RPCTLSError) {
        let now = time(nil)
        let counted = part == .authorities ? certificates[...] : certificates.prefix(1)
        guard counted.allSatisfy({ Int($0.notValidAfter) < now }) else { return }
        throw RPCTLSError(
            part: part, file: file, problem: part == .authorities ? "holds only what has expired" : "has expired")
    }

    static func key(_ file: String) throws(RPCTLSError) -> NIOSSLPrivateKey {
        try Self.checkReadable(file, .key)
        do {
            return try NIOSSLPrivateKey(file: file, format: .pem)
        } catch {
            throw RPCTLSError(
                part: .key, file: file, problem: "holds no private key in PEM format without a passphrase")
        }
    }

    /// - Parameter key: the file to blame if the two don't belong together.
    static func context(_ configuration: TLSConfiguration, key: String) throws(RPCTLSError) -> NIOSSLContext {
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw RPCTLSError(part: .key, file: key, problem: "does not belong to the certificate")
        }
    }

    /// TLS 1.2 with what RFC 9113, appendix A, leaves of its suites, and TLS 1.3.
    static func restrict(_ configuration: inout TLSConfiguration) {
        configuration.minimumTLSVersion = .tlsv12
        configuration.cipherSuiteValues = [
            .TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, .TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            .TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, .TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            .TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, .TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ]
        configuration.applicationProtocols = ["h2"]
        // How long a connection waits for the answer to its close_notify.
        configuration.shutdownTimeout = .seconds(1)
    }

    private static func checkReadable(_ file: String, _ part: RPCTLSError.Part) throws(RPCTLSError) {
        guard access(file, R_OK) != 0 else { return }
        throw RPCTLSError(part: part, file: file, problem: "can't be read: \(String(cString: strerror(errno)))")
    }
}
