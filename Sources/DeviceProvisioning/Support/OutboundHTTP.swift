import AsyncHTTPClient
import Dispatch
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import SagaRuntime
import Synchronization

/// An HTTP/1.1 client that knows of every request whether it can have left this process.
///
/// AsyncHTTPClient's errors don't tell: a time-out, a cancelled task or a broken connection is the same error whether
/// the request waited for a connection, was being connected, or was on its way. So each request carries a mark, and a handler in
/// every connection's pipeline looks at it when the request is about to be written: that is the first moment at which
/// a byte can leave, and the last at which it can be held back.
final class OutboundHTTP: Sendable {
    /// Why there is no answer.
    enum Failure: Error {
        /// No byte left, and none will. It waited for a connection, there was none to be had, or TLS didn't come about.
        case notSent(any Error)
        /// No byte left, because `authorize` said no.
        case unauthorized(StepError)
        /// It may have been read and acted upon.
        case sent(any Error)

        /// The other side could be reached, and TLS didn't come about: a certificate or a setting is wrong.
        var isOfTLS: Bool {
            guard case .notSent(let error) = self else { return false }
            return error is NIOSSLError || error is BoringSSLError
        }
    }

    private let client: HTTPClient
    private let marks = SendMarks()

    /// - Parameter configuration: of which redirects, HTTP version, tracing and retries are decided here.
    init(_ configuration: HTTPClient.Configuration) {
        var configuration = configuration
        // What the answer means is the caller's to say.
        configuration.redirectConfiguration = .disallow
        // Marks are seen by connections of this version only.
        configuration.httpVersion = .http1Only
        // A refused connection is an answer: the saga's own retry decides what comes next.
        configuration.connectionPool.retryConnectionEstablishment = false
        // Nothing collects spans here; describing each request to nobody takes a fifth of what a request takes.
        configuration.tracing.tracer = nil
        let marks = self.marks
        configuration.http1_1ConnectionDebugInitializer = { channel in
            channel.eventLoop.submit {
                let pipeline = channel.pipeline.syncOperations
                let decoder = try pipeline.handler(type: ByteToMessageHandler<HTTPResponseDecoder>.self)
                try pipeline.addHandler(SendMarkHandler(marks), position: .after(decoder))
            }
        }
        self.client = HTTPClient(
            eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup.singleton), configuration: configuration)
    }

    /// Sends one request. Returns with the answer's head; its body is still to be read.
    ///
    /// - Parameters:
    ///   - timeout: waiting for a connection and making one included.
    ///   - authorize: called right before the first byte leaves; may be called on an event loop.
    func execute(
        _ request: HTTPClientRequest, timeout: Duration, authorize: @escaping @Sendable () throws(StepError) -> Void
    ) async throws(Failure) -> HTTPClientResponse {
        let (name, mark) = self.marks.issue(authorize)
        defer { self.marks.forget(name) }
        var marked = request
        marked.headers.add(name: SendMarks.header, value: String(name))
        do {
            return try await self.client.execute(
                marked, timeout: .nanoseconds(max(timeout, .zero).wholeMicroseconds * 1000))
        } catch {
            switch mark.giveUp() {
            case .held: throw .notSent(error)
            case .refused(let reason): throw .unauthorized(reason)
            case .left: throw TLSAlert.endsHandshake(error) ? .notSent(error) : .sent(error)
            }
        }
    }

    /// For people: what kept a request from being sent.
    static func words(for error: any Error) -> String {
        let text =
            switch error {
            case let error as HTTPClientError
            where [.connectTimeout, .getConnectionFromPoolTimeout, .deadlineExceeded].contains(error):
                "no connection in time"
            case is CancellationError: "given up while it waited for a connection"
            case let error as NIOSSLError: "TLS: \(error)"
            default: "\(error)"
            }
        return Text.sanitised(text, maximumScalars: 300)
    }

    func shutdown() async { try? await self.client.shutdown() }

    // The library traps on a client that is dropped without a shutdown. A second one is an error to nobody.
    deinit { self.client.shutdown(queue: .global()) { _ in } }
}
