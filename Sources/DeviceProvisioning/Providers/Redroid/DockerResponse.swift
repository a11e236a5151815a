import FoundationEssentials
import NIOCore

/// What was answered.
struct DockerResponse: Sendable {
    /// Whose word an answer is, which decides what it says about the request.
    enum Author: Equatable {
        /// The engine's: the request was carried out, or refused, as it says.
        case engine
        /// A gateway's that turned the request away, or somebody's who knows another address: nothing happened.
        case gateway
        /// Whoever wrote it, the engine may be about to carry the request out.
        case unknown
    }

    var status: Int
    /// The header, if there is one.
    var contentType: String? = nil
    var body: ByteBuffer

    /// A page is never an engine's: that writes JSON, or nothing.
    var author: Author {
        switch self.status {
        case 200..<300: self.isPage ? .unknown : .engine
        case 304: .engine
        case 301, 302, 307, 308, 401, 407: .gateway
        // Whoever gave up on waiting, it wasn't the engine.
        case 408, 425, 499, 502, 504: .unknown
        case 400..<500: self.isPage ? .gateway : .engine
        case 500..<600: self.isPage ? .unknown : .engine
        default: .unknown
        }
    }

    private var isPage: Bool {
        guard let first = self.body.readableBytesView.first(where: { $0 != 32 && !(9...13).contains($0) }) else {
            return false
        }
        return first == UInt8(ascii: "<") || self.contentType.map { !$0.lowercased().contains("json") } ?? false
    }

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
