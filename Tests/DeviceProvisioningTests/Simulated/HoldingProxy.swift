import Foundation
import SagaRuntime
import Synchronization
import TestSupport

/// Between a client and the tests' PostgreSQL: holds back what the client sends, and passes it on later.
final class HoldingProxy: Sendable {
    private final class Gate: Sendable {
        let isClosed = Mutex(false)
    }

    private let listener: BlockingSocket
    private let gate = Gate()
    let configuration: PostgresConfiguration

    /// - Parameter database: one of `TestServer`, which listens on a socket in the file system.
    init(to database: TestDatabase) throws {
        func value(_ key: String) -> Substring {
            database.conninfo.split(separator: " ").first { $0.hasPrefix("\(key)=") }?.dropFirst(key.count + 1) ?? ""
        }
        let directory = value("host").trimmingCharacters(in: ["'"])
        let port = value("port").isEmpty ? "5432" : value("port").trimmingCharacters(in: ["'"])
        let path = "\(directory)/.s.PGSQL.\(port)"
        let listener = try BlockingSocket.listening()
        self.listener = listener
        // Of a keyword that comes twice libpq takes the last.
        self.configuration = .engine(
            conninfo: "\(database.conninfo) host=127.0.0.1 port=\(listener.port) sslmode=disable gssencmode=disable")
        let gate = self.gate
        Thread.detachNewThread {
            while let client = listener.accepted() {
                guard let server = try? BlockingSocket.connected(unixPath: path) else { continue }
                Thread.detachNewThread {
                    while case let bytes = server.read(), !bytes.isEmpty { client.write(bytes) }
                    client.shutDown()
                }
                Thread.detachNewThread {
                    while case let bytes = client.read(), !bytes.isEmpty {
                        while gate.isClosed.withLock({ $0 }) { usleep(5000) }
                        server.write(bytes)
                    }
                    server.shutDown()
                }
            }
        }
    }

    deinit { self.listener.shutDown() }

    func hold() { self.gate.isClosed.withLock { $0 = true } }
    func letGo() { self.gate.isClosed.withLock { $0 = false } }
}
