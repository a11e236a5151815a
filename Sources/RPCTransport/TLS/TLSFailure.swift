import Glibc
import NIOCore
import NIOSSL

/// Why a client's TLS failed, in plain words: NIOSSL tells it as BoringSSL's sources see it.
struct TLSFailure: Error, CustomStringConvertible {
    let reason: String

    var description: String { "TLS: \(self.reason)" }

    /// - Parameters:
    ///   - certificate: what the server has shown, if it came to that.
    ///   - name: what the server's certificate has to be for.
    init(_ error: any Error, certificate: NIOSSLCertificate?, name: String) {
        switch error {
        case let error as TLSFailure: self = error
        case let error as NIOSSLExtraError where error == .failedToValidateHostname:
            self.reason = "the server's certificate is not for \(name)"
        case let error as WrongServer: self.reason = "the server's certificate is not for \(error.name)"
        case NIOSSLError.unableToValidateCertificate:
            self.reason = Self.mistrust(certificate)
        case NIOSSLError.handshakeFailed(let error): self.reason = Self.reason(error, certificate)
        case let error as BoringSSLError: self.reason = Self.reason(error, certificate)
        case ChannelError.eof: self.reason = Self.hungUp
        default: self.reason = ConnectFailure.reason(error)
        }
    }

    private static let hungUp = "the server hung up during the handshake; it may not speak TLS"

    private static func reason(_ error: BoringSSLError, _ certificate: NIOSSLCertificate?) -> String {
        switch error {
        case .sslError(let stack), .unknownError(let stack), .invalidSNIName(let stack), .failedToSetALPN(let stack):
            // The last one is what the handshake itself says; those before it are about its parts.
            guard let last = stack.last else { return "the handshake failed" }
            if last == .eofDuringHandshake { return Self.hungUp }
            return Self.reason(named: Self.name(of: last), certificate)
        case .zeroReturn, .syscallError: return Self.hungUp
        case .noError, .wantRead, .wantWrite, .wantConnect, .wantAccept, .wantX509Lookup, .wantCertificateVerify:
            return "the handshake failed"
        }
    }

    /// The name in `Error: 1 error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED at /…/handshake.cc:320`.
    private static func name(of error: BoringSSLInternalError) -> String {
        let words = error.description.split(separator: ":")
        guard let library = words.firstIndex(of: "OPENSSL_internal"), library + 1 < words.count else {
            return "unknown"
        }
        return String(words[library + 1].prefix { $0 != " " })
    }

    private static func reason(named name: String, _ certificate: NIOSSLCertificate?) -> String {
        switch name {
        case "CERTIFICATE_VERIFY_FAILED": Self.mistrust(certificate)
        case "WRONG_VERSION_NUMBER": "the server does not speak TLS"
        case "UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION": "the server speaks neither TLS 1.2 nor TLS 1.3"
        case "TLSV1_ALERT_CERTIFICATE_REQUIRED": "the server wants a certificate of the client"
        case "TLSV1_ALERT_UNKNOWN_CA": "the server does not trust the authority of the client's certificate"
        case "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the server says that the client's certificate has expired"
        case "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "SSLV3_ALERT_CERTIFICATE_REVOKED",
            "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "TLSV1_ALERT_DECRYPT_ERROR", "TLSV1_ALERT_ACCESS_DENIED":
            "the server does not accept the client's certificate"
        case "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the server does not speak HTTP/2 over TLS (ALPN)"
        case "SSLV3_ALERT_HANDSHAKE_FAILURE":
            "the server refused the handshake; it may want a certificate of the client"
        default: "the handshake failed (\(name))"
        }
    }

    private static func mistrust(_ certificate: NIOSSLCertificate?) -> String {
        let now = time(nil)
        if let certificate, Int(certificate.notValidAfter) < now { return "the server's certificate has expired" }
        if let certificate, Int(certificate.notValidBefore) > now {
            return "the server's certificate is not valid yet"
        }
        return "the server's certificate comes from no authority that is trusted"
    }
}
