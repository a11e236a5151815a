import Synchronization

@testable import DeviceProvisioning

/// The user service's side: honours keys, knows no header beside them, and can be told to fail.
final class UserServiceLedger: Sendable {
    enum Fault: Sendable {
        /// Answers with this status and counts nothing.
        case status(Int)
        /// Counts, and hangs up.
        case loseReply
        /// Hangs up, and counts nothing.
        case drop
    }

    /// Shared with the server's threads.
    private final class Book: Sendable {
        struct State {
            /// Devices that count now.
            var devices: [String: Int] = [:]
            /// Keys that were applied.
            var seen: Set<String> = []
            /// By operation: faults of the next requests.
            var faults: [String: [Fault]] = [:]
            var requests = 0
        }
        let state = Mutex(State())
    }

    private let book: Book
    private let server: RawHTTPServer

    init() throws {
        let book = Book()
        self.book = book
        self.server = try RawHTTPServer { _, request in Self.answer(String(decoding: request, as: UTF8.self), book) }
    }

    /// `USER_SERVICE_URL`.
    var url: String { "http://" + self.server.dockerHost.dropFirst("tcp://".count) }
    /// How often each device counts.
    var devices: [String: Int] { self.book.state.withLock { $0.devices.filter { $0.value != 0 } } }
    var requests: Int { self.book.state.withLock { $0.requests } }

    func fail(_ operation: String, _ faults: [Fault]) {
        self.book.state.withLock { $0.faults[operation] = faults }
    }

    private static func answer(_ request: String, _ book: Book) -> RawHTTPServer.Reply {
        let lines = request.split(separator: "\r\n")
        func header(_ name: String) -> String? {
            lines.first { $0.lowercased().hasPrefix(name + ": ") }.map { String($0.dropFirst(name.count + 2)) }
        }
        guard let body = lines.last, let value = try? JSONValue(parsing: String(body)),
            let device = value["deviceId"]?.string, let operation = value["operation"]?.string,
            let key = header("idempotency-key")
        else { return Self.reply(400) }
        return book.state.withLock { state in
            state.requests += 1
            let fault = state.faults[operation]?.first
            if fault != nil { state.faults[operation]?.removeFirst() }
            if case .status(let status) = fault { return Self.reply(status) }
            if case .drop = fault { return .hangUp }
            if state.seen.insert(key).inserted {
                state.devices[device, default: 0] += operation == "increment" ? 1 : -1
            }
            if case .loseReply = fault { return .hangUp }
            return Self.reply(200)
        }
    }

    private static func reply(_ status: Int) -> RawHTTPServer.Reply {
        .bytes(Array("HTTP/1.1 \(status) X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".utf8))
    }
}
