import NIOSSL

/// Fatal alerts of TLS (RFC 8446, 6.2) that a server sends while it still decides about the handshake.
///
/// In TLS 1.3 a client may send its request before the server has looked at the client's certificate. A server that
/// answers with one of these has not accepted the connection, and so has read no request.
enum TLSAlert {
    private static let ofHandshakes: Set<Int> = [
        40,  // handshake_failure
        42, 43, 44, 45, 46,  // bad, unsupported, revoked, expired, unknown certificate
        48, 49,  // unknown_ca, access_denied
        70, 71,  // protocol_version, insufficient_security
        112, 115, 116, 120,  // unrecognized_name, unknown_psk_identity, certificate_required, no_application_protocol
    ]

    static func endsHandshake(_ error: any Error) -> Bool {
        switch error {
        case NIOSSLError.handshakeFailed: true
        case BoringSSLError.sslError(let stack):
            stack.contains { Self.number($0).map { Self.ofHandshakes.contains($0) } ?? false }
        default: false
        }
    }

    /// The alert that an error of BoringSSL stands for. The library shows its packed code as decimal digits only: the
    /// reason is its last twelve bits, and that of a received alert is 1000 and the alert's number (`ssl.h`).
    private static func number(_ error: BoringSSLInternalError) -> Int? {
        let words = error.description.split(separator: " ")
        guard words.count > 1, let code = UInt32(words[1]) else { return nil }
        let reason = Int(code & 0xfff)
        return (1000...1255).contains(reason) ? reason - 1000 : nil
    }
}
