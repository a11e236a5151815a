import AsyncHTTPClient
import Dispatch
import FoundationEssentials
import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix

enum DockerMethod: String, Sendable {
    case get = "GET"
    case post = "POST"
    case delete = "DELETE"
}

/// What the engine answered.
struct DockerResponse: Sendable {
    var status: Int
    var body: ByteBuffer

    /// The body as JSON; `nil` if it is something else.
    func decoded<Value: Decodable>(as type: Value.Type) -> Value? {
        try? JSONDecoder().decode(type, from: Data(self.body.readableBytesView))
    }

    /// The engine's own words: its error body is `{"message": "…"}`.
    var message: String {
        if let text = self.decoded(as: DockerMessage.self)?.message { return text }
        let text = String(decoding: self.body.readableBytesView.prefix(300), as: UTF8.self)
        return text.isEmpty ? "HTTP \(self.status)" : text
    }
}

/// Why there is no answer.
struct DockerFailure: Error, Sendable {
    /// The request has left this process: what it asks for may have happened.
    var wasSent: Bool
    var message: String
}

/// The Docker engine's HTTP API (Docker Engine API, version 1.41; without a version in the path an engine serves its own
/// newest, and all that is used here has stayed the same since).
final class DockerClient: Sendable {
    let endpoint: DockerEndpoint
    private let http: HTTPClient
    /// The largest answer that is read; a list of 10,000 containers has about 20 MB.
    private let maximumBodyBytes = 32 << 20

    init(endpoint: DockerEndpoint, maximumConnections: Int = RedroidConfiguration.usualMaximumConnections) {
        self.endpoint = endpoint
        var configuration = HTTPClient.Configuration()
        configuration.redirectConfiguration = .disallow
        configuration.timeout.connect = .seconds(5)
        configuration.connectionPool.idleTimeout = .seconds(30)
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = maximumConnections
        // A refused connection is an answer: the saga's own retry decides what comes next.
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.httpVersion = .http1Only
        self.http = HTTPClient(
            eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup.singleton), configuration: configuration)
    }

    /// Sends one request and reads the whole answer, whatever its status.
    ///
    /// - Parameter query: names and values, encoded here.
    func send(
        _ method: DockerMethod, _ path: String, query: [(String, String)] = [], body: [UInt8]? = nil,
        until deadline: ContinuousClock.Instant
    ) async throws(DockerFailure) -> DockerResponse {
        var url = self.endpoint.baseURL + path
        for (index, (name, value)) in query.enumerated() {
            url += "\(index == 0 ? "?" : "&")\(name)=\(PercentEncoding.encoded(value))"
        }
        var request = HTTPClientRequest(url: url)
        request.method = HTTPMethod(rawValue: method.rawValue)
        request.headers.add(name: "host", value: self.endpoint.host ?? "docker")
        if let body {
            request.headers.add(name: "content-type", value: "application/json")
            request.body = .bytes(body)
        }
        let sealed = request
        guard deadline > .now else {
            throw DockerFailure(wasSent: false, message: "no time was left for the request to the Docker engine")
        }
        do {
            return try await TimeLimit.run(until: deadline) {
                let response = try await self.http.execute(sealed, timeout: .hours(1))
                let body = try await response.body.collect(upTo: self.maximumBodyBytes)
                return DockerResponse(status: Int(response.status.code), body: body)
            }
        } catch is TimeLimit.Exceeded {
            throw DockerFailure(wasSent: true, message: "the Docker engine did not answer in time")
        } catch is CancellationError {
            throw DockerFailure(wasSent: true, message: "the request to the Docker engine was cancelled")
        } catch {
            let wasSent = !Self.isConnectFailure(error)
            throw DockerFailure(
                wasSent: wasSent,
                message: wasSent
                    ? "the connection to the Docker engine was lost"
                    : "the Docker engine at \(self.endpoint) can't be reached")
        }
    }

    /// Errors that mean that there never was a connection.
    private static func isConnectFailure(_ error: any Error) -> Bool {
        if error is NIOConnectionError { return true }
        if let error = error as? HTTPClientError { return error == .connectTimeout }
        if let error = error as? IOError {
            return [ECONNREFUSED, ENOENT, EACCES, EHOSTUNREACH, ENETUNREACH, ENOTSOCK, EAGAIN].contains(error.errnoCode)
        }
        return false
    }

    func shutdown() async {
        try? await self.http.shutdown()
    }

    // The library traps on a client that is dropped without a shutdown. A second one is an error to nobody.
    deinit {
        self.http.shutdown(queue: .global()) { _ in }
    }
}
