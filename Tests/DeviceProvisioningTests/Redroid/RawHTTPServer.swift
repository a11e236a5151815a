import Foundation

/// An HTTP server for tests that does what no library would: answers raw bytes, or takes a request and hangs up.
final class RawHTTPServer: Sendable {
    enum Reply: Sendable {
        case bytes([UInt8])
        /// Closes the connection without a word.
        case hangUp
        /// Says nothing and keeps the connection.
        case silence
    }

    private let listener: BlockingSocket
    var dockerHost: String { "tcp://127.0.0.1:\(self.listener.port)" }

    /// - Parameter handler: gets the request line and the whole request; one request a connection.
    init(handler: @escaping @Sendable (String, [UInt8]) -> Reply) throws {
        let listener = try BlockingSocket.listening()
        self.listener = listener
        Thread.detachNewThread {
            while let peer = listener.accepted() {
                Thread.detachNewThread {
                    guard let request = Self.readRequest(peer) else { return }
                    let line = String(decoding: request.prefix { $0 != UInt8(ascii: "\r") }, as: UTF8.self)
                    switch handler(line, request) {
                    case .bytes(let bytes): peer.write(bytes)
                    case .hangUp: break
                    case .silence: _ = peer.readToEnd()
                    }
                }
            }
        }
    }

    deinit { self.listener.shutDown() }

    /// A server that gives every request the same answer.
    convenience init(status: Int, body: String, headers: String = "") throws {
        let text =
            "HTTP/1.1 \(status) X\r\nContent-Length: \(body.utf8.count)\r\n\(headers)Connection: close\r\n\r\n\(body)"
        try self.init { _, _ in .bytes(Array(text.utf8)) }
    }

    /// A way to an engine that loses the answers to requests for which `loses` says so: the engine has done what it was
    /// asked when the connection breaks. `holdUp` runs before a request is passed on, on a thread of its own.
    convenience init(
        before dockerHost: String, holdUp: @escaping @Sendable (String) -> Void = { _ in },
        loses: @escaping @Sendable (String) -> Bool
    ) throws {
        let path = String(dockerHost.dropFirst("unix://".count))
        try self.init { line, request in
            holdUp(line)
            guard let engine = try? BlockingSocket.connected(unixPath: path) else { return .hangUp }
            // The engine closes after its answer, so that the end of the answer is the end of the stream.
            let lineEnd = (request.firstIndex(of: UInt8(ascii: "\n")) ?? 0) + 1
            engine.write(request[..<lineEnd] + Array("Connection: close\r\n".utf8) + request[lineEnd...])
            let answer = engine.readToEnd()
            return loses(line) ? .hangUp : .bytes(answer)
        }
    }

    private static func readRequest(_ peer: BlockingSocket) -> [UInt8]? {
        var request: [UInt8] = []
        while true {
            let bytes = peer.read()
            if bytes.isEmpty { return nil }
            request += bytes
            guard let head = String(decoding: request, as: UTF8.self).range(of: "\r\n\r\n") else { continue }
            let text = String(decoding: request, as: UTF8.self)
            let headers = text[..<head.lowerBound].lowercased()
            let length =
                headers.split(separator: "\r\n").first { $0.hasPrefix("content-length:") }
                .flatMap { Int($0.dropFirst("content-length:".count).trimmingCharacters(in: .whitespaces)) } ?? 0
            let headBytes = text[..<head.upperBound].utf8.count
            if request.count >= headBytes + length { return request }
        }
    }
}
