import AsyncHTTPClient
import FoundationEssentials
public import Logging
import NIOCore
import NIOHTTP1
public import SagaRuntime
import Synchronization

/// Tells the user service what a device takes of its owner's quota.
public final class QuotaClient: Sendable {
    enum Operation: Sendable, Equatable {
        case increment(key: String)
        /// The increment of this key again, before it is taken back.
        case confirmation(key: String)
        /// Has a key of its own, made from the increment's.
        case decrement(compensating: String)
    }

    /// A struct and not the bare closure: a generic `Mutex` would wrap a closure in one more thunk each time it is read.
    private struct Clock {
        var now: @Sendable () -> Timestamp
    }

    public let configuration: QuotaConfiguration
    private let token: ServiceToken
    private let logger: Logger
    /// `nil`: this machine's wall clock.
    private let clock = Mutex<Clock?>(nil)
    private let http: OutboundHTTP
    private let misdirections = Mutex(Occasionally())
    /// Counts what `assume` was told; true: an increment.
    private let assumed: @Sendable (Bool) -> Void
    /// The most of an answer that is read.
    private static let maximumBodyBytes = 64 * 1024

    /// - Parameter assumed: told of each report whose outcome is unknown and that is taken for done; true: an increment.
    public init(
        configuration: QuotaConfiguration, logger: Logger = Logger(label: "devicerpc"),
        assumed: @escaping @Sendable (Bool) -> Void = { _ in }
    ) {
        self.configuration = configuration
        self.logger = logger
        self.assumed = assumed
        self.token = ServiceToken(serviceName: configuration.serviceName, secret: configuration.jwtSecret)
        var http = HTTPClient.Configuration()
        http.timeout.connect = .nanoseconds(min(configuration.timeout, .seconds(2)).wholeMicroseconds * 1000)
        http.timeout.read = .nanoseconds(configuration.undoTimeout.wholeMicroseconds * 1000)
        // Shorter than the 5 s after which Node.js closes an idle connection: a request that meets the other side's close
        // has an unknown outcome.
        http.connectionPool.idleTimeout = .seconds(4)
        http.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = configuration.maximumConnections
        configuration.trusted?.apply(to: &http)
        self.http = OutboundHTTP(http)
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
        await self.http.shutdown()
    }

    /// Sends one report. Returns once the service has confirmed it.
    ///
    /// - Parameter authorize: called right before the request leaves, maybe on an event loop.
    func send(
        _ operation: Operation, for device: DeviceRequest,
        authorize: @escaping @Sendable () throws(StepError) -> Void
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
        case .increment, .confirmation: break
        case .decrement(let key):
            // For the service's own records; nothing here depends on what it makes of it.
            request.headers.add(name: "x-compensates", value: key)
        }
        request.headers.add(name: "idempotency-key", value: operation.key)
        request.body = .bytes(ByteBuffer(string: Self.body(operation, device)))

        let response: HTTPClientResponse
        do {
            response = try await self.http.execute(
                request,
                timeout: operation.report == .increment ? self.configuration.timeout : self.configuration.undoTimeout,
                authorize: authorize)
        } catch {
            let failure = Self.failure(error)
            if error.isOfTLS { self.complain(failure.message, nil) }
            throw failure
        }
        let text = try? await String(buffer: response.body.collect(upTo: Self.maximumBodyBytes))
        try self.judge(
            status: Int(response.status.code), contentType: response.headers.first(name: "content-type"),
            retryAfter: response.headers.first(name: "retry-after"), text: text, to: operation.report)
    }

    /// Returns if the service has confirmed the report; else throws what its answer means.
    private func judge(
        status: Int, contentType: String?, retryAfter: String?, text: String?, to report: QuotaAnswer.Report
    ) throws(StepError) {
        let value = text.flatMap { try? JSONValue(parsing: $0) }
        let answer = QuotaAnswer(
            status: status, body: QuotaAnswer.Body(contentType: contentType, text: text, value: value), to: report,
            retryAfter: retryAfter, now: Int64(self.now.timeIntervalSince1970))
        // The service's own words, if it has some: `{"message": "…"}`.
        let words = value?["message"]?.string.map { ": " + Text.sanitised($0, maximumScalars: 200) } ?? ""
        let message = "the user service answered \(status)\(words)"
        if status == 401 || status == 403 { self.token.forget() }
        let errorClass: StepError.Class
        switch answer {
        case .done: return
        case .refused:
            throw StepError(.refused, reason: DeviceFailureReason.quotaRefused, message: message)
        case .contradicted:
            throw StepError(.undecidable, reason: DeviceFailureReason.quotaRefused, message: message)
        case .throttled(let delay): errorClass = .throttled(after: delay)
        case .misdirected:
            self.complain(message, status)
            errorClass = .unavailable
        case .unknown: errorClass = .unknownOutcome
        }
        throw StepError(errorClass, reason: DeviceFailureReason.quotaUnavailable, message: message)
    }

    /// One line a minute for all sagas that meet it: an operator has to look at the configuration.
    private func complain(_ message: String, _ status: Int?) {
        guard let count = self.misdirections.withLock({ $0.occurred(now: .now) }) else { return }
        var metadata: Logger.Metadata = ["error": "\(message)", "count": "\(count)"]
        if let status { metadata["status"] = "\(status)" }
        self.logger.error(
            "[QUOTA] reports don't reach the user service: its address, a certificate, the token or a gateway is wrong",
            metadata: metadata)
    }

    /// Says, for a reconciliation, that a report of unknown outcome is taken for done.
    func assume(_ operation: Operation, for device: DeviceRequest, of saga: SagaID) {
        let isIncrement = operation.report != .decrement
        self.assumed(isIncrement)
        self.logger.warning(
            "[QUOTA] outcome of a report unknown, assumed done",
            metadata: [
                "saga_id": "\(saga)", "user_id": "\(device.userID)", "device_id": "\(device.deviceID)",
                "delta": "\(isIncrement ? 1 : -1)", "key": "\(operation.key)",
            ])
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
            case .increment, .confirmation: writer.member("operation", "increment")
            case .decrement: writer.member("operation", "decrement")
            }
        }
    }

    /// Exact: 1/1024 has ten decimals.
    private static func gigabytes(_ megabytes: Int) -> String {
        megabytes % 1024 == 0 ? String(megabytes / 1024) : "\(Double(megabytes) / 1024)"
    }

    /// Whether the request can have been sent decides everything.
    static func failure(_ failure: OutboundHTTP.Failure) -> StepError {
        switch failure {
        case .unauthorized(let error): error
        case .sent:
            StepError(
                .unknownOutcome, reason: DeviceFailureReason.quotaUnavailable,
                message: "the user service's answer was lost")
        case .notSent(let error):
            StepError(
                .unavailable, reason: DeviceFailureReason.quotaUnavailable,
                message: "the user service can't be reached: \(OutboundHTTP.words(for: error))")
        }
    }
}

extension QuotaClient.Operation {
    var report: QuotaAnswer.Report {
        switch self {
        case .increment: .increment
        case .confirmation: .confirmation
        case .decrement: .decrement
        }
    }

    /// `Idempotency-Key`.
    var key: String {
        switch self {
        case .increment(let key), .confirmation(let key): key
        case .decrement(let key): "\(key):undo"
        }
    }
}
