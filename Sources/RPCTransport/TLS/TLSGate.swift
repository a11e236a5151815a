import Glibc
import NIOCore
import NIOSSL
import NIOTLS

/// Sits behind a connection's TLS handler and lets it go on only as h2 (RFC 9113, section 3.2).
///
/// Everything else closes quietly: other protocols, failed handshakes, plaintext, and connections that end before they
/// have begun.
final class TLSGate: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let handler: NIOSSLHandler
    /// What the peer's certificate must be for, beside what NIOSSL checks: that takes a certificate of the address that is
    /// connected to for one of any name, and whoever can lead a name astray may well have one of his own address.
    private let serverName: String?
    private let explain: (any Error) -> any Error
    private var isOpen = false
    /// Told once how the handshake went.
    private var negotiated: ((Result<PeerCertificate?, any Error>) -> Void)?

    /// - Parameter explain: what becomes of errors before anybody is told.
    init(
        handler: NIOSSLHandler, serverName: String? = nil, explain: @escaping (any Error) -> any Error = { $0 },
        negotiated: @escaping (Result<PeerCertificate?, any Error>) -> Void
    ) {
        self.handler = handler
        self.serverName = serverName
        self.explain = explain
        self.negotiated = negotiated
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(let negotiatedProtocol)? = event as? TLSUserEvent {
            let shown = self.handler.peerCertificate
            let certificate = shown.map { PeerCertificate($0) }
            if let shown, Int(shown.notValidAfter) < time(nil) {
                // Of a session that was resumed: the certificate was checked when that began, and not since.
                self.tell(.failure(CertificateEnded()))
                context.close(promise: nil)
            } else if let serverName, certificate?.isFor(serverName) != true {
                self.tell(.failure(WrongServer(name: serverName)))
                context.close(promise: nil)
            } else if negotiatedProtocol == "h2" {
                self.isOpen = true
                self.tell(.success(certificate))
            } else {
                self.tell(.failure(NoCommonProtocol()))
                context.close(promise: nil)
            }
        }
        context.fireUserInboundEventTriggered(event)
    }

    /// Closing takes until the peer has answered, and what came along with its handshake is still decoded meanwhile.
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if self.isOpen { context.fireChannelRead(data) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // The end of the other side, which needs no words about TLS once that is through.
        let isEnd = if case NIOSSLError.uncleanShutdown = error { true } else { false }
        let error = isEnd ? ChannelError.eof : error
        self.tell(.failure(error))
        context.fireErrorCaught(isEnd ? error : self.explain(error))
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.tell(.failure(ChannelError.eof))
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.tell(.failure(ChannelError.eof)) }

    private func tell(_ result: Result<PeerCertificate?, any Error>) {
        guard let negotiated = self.negotiated else { return }
        self.negotiated = nil
        negotiated(result.mapError(self.explain))
    }
}
