import AsyncHTTPClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import SagaRuntime

enum DockerMethod: String, Sendable {
    case get = "GET"
    case post = "POST"
    case delete = "DELETE"
}

/// Why there is no answer.
enum DockerFailure: Error, Sendable {
    /// No byte of the request left.
    case notSent(String)
    /// No byte of the request left, because this process may not start effects any more.
    case unauthorized(StepError)
    /// What it asks for may have happened.
    case sent(String)
}

/// The Docker engine's HTTP API (Docker Engine API, version 1.41; without a version in the path an engine serves its own
/// newest, and all that is used here has stayed the same since).
final class DockerClient: Sendable {
    let endpoint: DockerEndpoint
    private let http: OutboundHTTP
    /// The largest answer that is read; a list of 10,000 containers has about 20 MB.
    private let maximumBodyBytes = 32 << 20

    init(endpoint: DockerEndpoint, maximumConnections: Int = RedroidConfiguration.usualMaximumConnections) {
        self.endpoint = endpoint
        var configuration = HTTPClient.Configuration()
        configuration.timeout.connect = .seconds(5)
        configuration.connectionPool.idleTimeout = .seconds(30)
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = maximumConnections
        self.http = OutboundHTTP(configuration)
    }

    /// Sends one request and reads the whole answer, whatever its status.
    ///
    /// - Parameters:
    ///   - query: names and values, encoded here.
    ///   - authorize: called right before the request leaves, maybe on an event loop.
    func send(
        _ method: DockerMethod, _ path: String, query: [(String, String)] = [], body: [UInt8]? = nil,
        until deadline: ContinuousClock.Instant,
        authorize: @escaping @Sendable () throws(StepError) -> Void = { () throws(StepError) in }
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
        let rest = ContinuousClock.now.duration(to: deadline)
        guard rest > .zero else { throw .notSent("no time was left for the request to the Docker engine") }
        let response: HTTPClientResponse
        do {
            response = try await self.http.execute(request, timeout: rest, authorize: authorize)
        } catch .unauthorized(let error) {
            throw .unauthorized(error)
        } catch .notSent(let error) {
            throw .notSent("the Docker engine at \(self.endpoint) can't be reached: \(OutboundHTTP.words(for: error))")
        } catch {
            throw .sent(
                deadline <= .now
                    ? "the Docker engine did not answer in time" : "the connection to the Docker engine was lost")
        }
        do {
            let body = try await TimeLimit.run(until: deadline) {
                try await response.body.collect(upTo: self.maximumBodyBytes)
            }
            return DockerResponse(
                status: Int(response.status.code), contentType: response.headers.first(name: "content-type"), body: body
            )
        } catch {
            throw .sent("the Docker engine's answer broke off, or is too long")
        }
    }

    func shutdown() async { await self.http.shutdown() }
}
