import NIOCore
import Synchronization

/// `grpc.health.v1.Health` (grpc/doc/health-checking.md, gRFC A90): Check, List and Watch.
///
/// The name "" is the whole server. Check of a name that was never set is NOT_FOUND; Watch of it answers
/// SERVICE_UNKNOWN and stays open, since the name may be set later. When the server drains, watchers hear NOT_SERVING
/// and then UNAVAILABLE.
public final class HealthService: Sendable {
    public enum Status: Int, Sendable, Hashable {
        case unknown = 0
        case serving = 1
        case notServing = 2
        /// Only in answers of Watch.
        case serviceUnknown = 3
    }

    /// Of a service, by its bytes: a client may ask for any, and Swift takes the square of the length of some strings to
    /// hash them.
    private struct Name: Hashable {
        let bytes: [UInt8]

        init(_ name: String) { self.bytes = Array(name.utf8) }

        init(_ bytes: ArraySlice<UInt8>) { self.bytes = Array(bytes) }
    }

    private struct State {
        var statuses: [Name: Status]
        /// After the shutdown nothing is set any more.
        var isShutDown = false
        var watchers: [Name: [Int: AsyncStream<Status>.Continuation]] = [:]
        var nextWatcher = 0
    }

    /// The encoded answers, made once.
    private static let replies: [Status: ByteBuffer] = [
        .unknown: ByteBuffer(), .serving: ByteBuffer(bytes: [8, 1]), .notServing: ByteBuffer(bytes: [8, 2]),
        .serviceUnknown: ByteBuffer(bytes: [8, 3]),
    ]

    private let state: Mutex<State>

    /// - Parameter statuses: by service; "" is the whole server.
    public init(_ statuses: [String: Status] = ["": .serving]) {
        self.state = Mutex(
            State(statuses: Dictionary(uniqueKeysWithValues: statuses.map { (Name($0.key), $0.value) })))
    }

    public var service: RPCService {
        RPCService(
            name: "grpc.health.v1.Health",
            methods: [
                .unaryAtOnce("Check", maximumMessageBytes: 4096) { message, _ in
                    let name = try Self.serviceName(message)
                    guard let status = self.state.withLock({ $0.statuses[name] }) else {
                        throw RPCError(.notFound, "unknown service")
                    }
                    return RPCReply(message: Self.replies[status] ?? ByteBuffer())
                },
                .unaryAtOnce("List", maximumMessageBytes: 4096) { message, _ in
                    var reader = ProtoReader(Array(message.readableBytesView))
                    while reader.next() != nil {}
                    guard !reader.isMalformed else { throw RPCError(.internal, "cannot parse HealthListRequest") }
                    return try self.list()
                },
                .serverStreaming("Watch", staysOnEventLoop: true, maximumMessageBytes: 4096) { message, _, writer in
                    let name = try Self.serviceName(message)
                    // The last one counts: a slow watcher isn't told what has been superseded meanwhile.
                    let (statuses, continuation) = AsyncStream.makeStream(
                        of: Status.self, bufferingPolicy: .bufferingNewest(1))
                    let id = self.addWatcher(name, continuation)
                    defer { self.removeWatcher(name, id) }
                    var last: Status?
                    for await status in statuses where status != last {
                        last = status
                        try await writer.write(Self.replies[status] ?? ByteBuffer())
                    }
                    // Ended by the shutdown; or by cancellation, and the call is over already.
                    throw RPCError(.unavailable, "the server is draining")
                },
            ], onDrain: { self.shutDown() })
    }

    /// gRFC A90: as many services as a client is ready for.
    private static let listLimit = 100

    private func list() throws(RPCError) -> RPCReply {
        let statuses = self.state.withLock { $0.statuses }
        guard statuses.count <= Self.listLimit else {
            throw RPCError(.resourceExhausted, "more than \(Self.listLimit) services")
        }
        var response = ProtoWriter()
        for (name, status) in statuses.sorted(by: { $0.key.bytes.lexicographicallyPrecedes($1.key.bytes) }) {
            // HealthListResponse.statuses, a map: each entry is a message of key and value.
            response.message(1) { entry in
                entry.string(1, String(decoding: name.bytes, as: UTF8.self))
                entry.bytes(2, (Self.replies[status] ?? ByteBuffer()).readableBytesView)
            }
        }
        return RPCReply(message: ByteBuffer(bytes: response.bytes))
    }

    public func setStatus(_ service: String = "", _ status: Status) {
        let service = Name(service)
        self.state.withLock { state in
            guard !state.isShutDown else { return }
            state.statuses[service] = status
            if let watchers = state.watchers[service] {
                for watcher in watchers.values { watcher.yield(status) }
            }
        }
    }

    public func status(_ service: String = "") -> Status? { self.state.withLock { $0.statuses[Name(service)] } }

    /// Everything is NOT_SERVING from now on, for good, and watches end. A draining server calls it by itself.
    public func shutDown() {
        self.state.withLock { state in
            guard !state.isShutDown else { return }
            state.isShutDown = true
            for name in state.statuses.keys { state.statuses[name] = .notServing }
            for (name, watchers) in state.watchers {
                for watcher in watchers.values {
                    if state.statuses[name] != nil { watcher.yield(.notServing) }
                    watcher.finish()
                }
            }
        }
    }

    private func addWatcher(_ name: Name, _ continuation: AsyncStream<Status>.Continuation) -> Int {
        self.state.withLock { state in
            state.nextWatcher += 1
            state.watchers[name, default: [:]][state.nextWatcher] = continuation
            continuation.yield(state.statuses[name] ?? .serviceUnknown)
            if state.isShutDown { continuation.finish() }
            return state.nextWatcher
        }
    }

    private func removeWatcher(_ name: Name, _ id: Int) {
        self.state.withLock { state in
            state.watchers[name]?[id] = nil
            if state.watchers[name]?.isEmpty == true { state.watchers[name] = nil }
        }
    }

    /// `HealthCheckRequest.service`, field 1.
    private static func serviceName(_ message: ByteBuffer) throws(RPCError) -> Name {
        guard message.readableBytes > 0 else { return Name("") }
        var reader = ProtoReader(Array(message.readableBytesView))
        var name = Name("")
        while let (field, value) = reader.next() {
            guard field == 1 else { continue }
            guard case .bytes(let bytes) = value, String(validating: bytes, as: UTF8.self) != nil else {
                throw RPCError(.internal, "cannot parse HealthCheckRequest")
            }
            name = Name(bytes)
        }
        guard !reader.isMalformed else { throw RPCError(.internal, "cannot parse HealthCheckRequest") }
        return name
    }
}
