import Foundation
import Synchronization

/// A TCP server for tests that does with each connection what it is told, on a thread of its own.
final class RawPeer: Sendable {
    private let listener: BlockingSocket
    /// What was read, by connection, as far as the body says so.
    let seen = Mutex<[[UInt8]]>([])

    var port: Int { self.listener.port }
    var url: String { "http://127.0.0.1:\(self.port)/x" }

    init(_ body: @escaping @Sendable (BlockingSocket, Record) -> Void) throws {
        let listener = try BlockingSocket.listening()
        self.listener = listener
        Thread.detachNewThread { [weak self] in
            while let peer = listener.accepted() {
                let record = Record(peer: self)
                Thread.detachNewThread { body(peer, record) }
            }
        }
    }

    deinit { self.listener.shutDown() }

    /// Takes down what was read.
    struct Record: Sendable {
        weak let peer: RawPeer?
        func callAsFunction(_ bytes: [UInt8]) { self.peer?.seen.withLock { $0.append(bytes) } }
    }

    var text: String { String(decoding: self.seen.withLock { $0 }.joined(), as: UTF8.self) }
}
