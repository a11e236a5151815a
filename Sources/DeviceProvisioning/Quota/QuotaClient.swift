import AsyncHTTPClient
import FoundationEssentials
import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
public import SagaRuntime
import Synchronization

/// Tells the user service what a device takes of its owner's quota.
public final class QuotaClient: Sendable {
    enum Operation: Sendable, Equatable {
        case increment(key: String)
        /// Has a key of its own, and names the increment's, so that a service that honours keys takes back only what it
        /// counted, and refuses an increment that comes after its undo.
        case decrement(compensating: String)
    }

    /// A struct and not the bare closure: a generic `Mutex` would wrap a closure in one more thunk each time it is read.
    private struct Clock {
        var now: @Sendable () -> Timestamp
    }

    public let configuration: QuotaConfiguration
    private let token: ServiceToken
    /// `nil`: this machine's wall clock.
    private let clock = Mutex<Clock?>(nil)
    private let http: HTTPClient
    /// The most of an answer that is read.
    private static let maximumBodyBytes = 64 * 1024

    public init(configuration: QuotaConfiguration) {
        self.configuration = configuration
        self.token = ServiceToken(serviceName: configuration.serviceName, secret: configuration.jwtSecret)
        var http = HTTPClient.Configuration()
        http.redirectConfiguration = .disallow
        http.httpVersion = .http1Only
        http.timeout.connect = .nanoseconds(min(configuration.timeout, .seconds(2)).wholeMicroseconds * 1000)
        http.timeout.read = .nanoseconds(configuration.timeout.wholeMicroseconds * 1000)
        // Shorter than the 5 s after which Node.js closes an idle connection: a request that meets the other side's close
        // has an unknown outcome.
        http.connectionPool.idleTimeout = .seconds(4)
        http.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = configuration.maximumConnections
        // Nothing collects spans here; describing each request to nobody takes a fifth of what a request takes.
        http.tracing.tracer = nil
        // A refused connection is an answer: the saga's own retry decides what comes next.
        http.connectionPool.retryConnectionEstablishment = false
        self.http = HTTPClient(
            eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup.singleton), configuration: http)
    }

    /// Dates the service's tokens by `clock`, the database's: a token of a process whose own clock is off would be refused.
    public func useClock(_ clock: @escaping @Sendable () -> Timestamp) {
        self.clock.withLock { $0 = Clock(now: clock) }
    }

    private var now: Date {
        guard let clock = self.clock.withLock({ $0 }) else { return Date() }
        return Date(timeIntervalSince1970: Double(clock.now().microseconds) / 1e6)
    }

    /// Closes the connections and lets go of the clock, whose owner may hold this client. Nothing may be sent afterwards.
    public func shutdown() async {
        self.clock.withLock { $0 = nil }
        try? await self.http.shutdown()
    }

    /// Sends one report. Returns once the service has confirmed it.
    ///
    /// - Parameter authorize: called right before the request leaves.
    func send(
        _ operation: Operation, for device: DeviceRequest, authorize: @Sendable () throws(StepError) -> Void
    ) async throws(StepError) {
        guard let segment = Self.pathSegment(device.userID) else {
            throw StepError(
                .invalid, reason: DeviceFailureReason.quotaRefused, message: "the user's id can't stand in a path")
        }
        var request = HTTPClientRequest(
            url: "\(self.configuration.baseURL)/api/internal/quotas/user/\(segment)/usage")
        request.method = .POST
        request.headers.reserveCapacity(6)
        request.headers.add(name: "content-type", value: "application/json")
        do {
            request.headers.add(name: "x-service-token", value: try await self.token.value(now: self.now))
        } catch {
            throw StepError(
                .unavailable, reason: DeviceFailureReason.quotaUnavailable, message: "the service token can't be signed"
            )
        }
        switch operation {
        case .increment(let key):
            request.headers.add(name: "idempotency-key", value: key)
        case .decrement(let key):
            request.headers.add(name: "idempotency-key", value: "\(key):undo")
            request.headers.add(name: "x-compensates", value: key)
        }
        request.body = .bytes(ByteBuffer(string: Self.body(operation, device)))

        let timeout = TimeAmount.nanoseconds(self.configuration.timeout.wholeMicroseconds * 1000)
        let status: Int
        let retryAfter: String?
        let body: ByteBuffer
        try authorize()
        do {
            let response = try await self.http.execute(request, timeout: timeout)
            status = Int(response.status.code)
            retryAfter = response.headers.first(name: "retry-after")
            // The status is the answer; what follows is read for its message, and so that the connection can be used on.
            body = (try? await response.body.collect(upTo: Self.maximumBodyBytes)) ?? ByteBuffer()
        } catch {
            throw Self.failure(error)
        }
        let now = Int64(self.now.timeIntervalSince1970)
        switch QuotaAnswer(status: status, retryAfter: retryAfter, now: now) {
        case .done:
            return
        case .refused:
            if status == 401 || status == 403 { self.token.forget() }
            throw StepError(
                .refused, reason: DeviceFailureReason.quotaRefused, message: Self.message(status: status, body))
        case .throttled(let delay):
            throw StepError(
                .throttled(after: delay), reason: DeviceFailureReason.quotaUnavailable,
                message: Self.message(status: status, body))
        case .unknown:
            throw StepError(
                .unknownOutcome, reason: DeviceFailureReason.quotaUnavailable,
                message: Self.message(status: status, body))
        }
    }

    // MARK: Parts

    /// RFC 3986: everything but unreserved characters is percent-encoded. `nil` for what can't be one segment.
    static func pathSegment(_ text: String) -> String? {
        guard !text.isEmpty, text != ".", text != ".." else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                bytes.append(byte)
            default:
                bytes.append(UInt8(ascii: "%"))
                bytes.append(Self.hexadecimal[Int(byte >> 4)])
                bytes.append(Self.hexadecimal[Int(byte & 15)])
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static let hexadecimal = Array("0123456789ABCDEF".utf8)

    static func body(_ operation: Operation, _ device: DeviceRequest) -> String {
        JSONWriter.object(reserving: 160) { writer in
            writer.member("deviceId", device.deviceID)
            writer.member("cpuCores", device.spec.cpuCores)
            writer.member("memoryGB", json: Self.gigabytes(device.spec.memoryMB))
            writer.member("storageGB", json: Self.gigabytes(device.spec.storageMB))
            switch operation {
            case .increment: writer.member("operation", "increment")
            case .decrement: writer.member("operation", "decrement")
            }
        }
    }

    /// Exact: 1/1024 has ten decimals.
    private static func gigabytes(_ megabytes: Int) -> String {
        megabytes % 1024 == 0 ? String(megabytes / 1024) : "\(Double(megabytes) / 1024)"
    }

    /// The service's own words, if it has some: `{"message": "…"}`.
    private static func message(status: Int, _ body: ByteBuffer) -> String {
        let words = (try? JSONValue(parsing: String(buffer: body)))?["message"]?.string
        let text = words.map { ": " + Text.sanitised($0, maximumScalars: 200) } ?? ""
        return "the user service answered \(status)\(text)"
    }

    /// Whether the request can have been sent decides everything.
    static func failure(_ error: any Error) -> StepError {
        let wasSent: Bool
        switch error {
        case is NIOConnectionError:
            wasSent = false
        case let error as IOError where error.errnoCode == ECONNREFUSED:
            wasSent = false
        case let error as HTTPClientError:
            wasSent = ![
                .connectTimeout, .getConnectionFromPoolTimeout, .tlsHandshakeTimeout, .alreadyShutdown, .invalidURL,
                .emptyHost, .emptyScheme,
            ].contains(error)
        default:
            wasSent = true
        }
        return wasSent
            ? StepError(
                .unknownOutcome, reason: DeviceFailureReason.quotaUnavailable,
                message: "the user service's answer was lost")
            : StepError(
                .unavailable, reason: DeviceFailureReason.quotaUnavailable,
                message: "the user service can't be reached")
    }
}
