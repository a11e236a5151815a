import Glibc
public import SagaRuntime
import Synchronization

/// The PostgreSQL server of this test process: started when first asked for, in a directory of its own, not durable. A
/// guard process stops it and removes the directory as soon as this process is gone, however it went.
public actor TestServer {
    public static let shared = TestServer()

    private static let number = Atomic<Int>(0)
    private var server: Task<EmbeddedPostgres, any Error>?

    private init() {}

    /// The running server.
    public func start() async throws -> EmbeddedPostgres {
        if let server = self.server { return try await server.value }
        let server = Task {
            let directory = try TemporaryDirectory.makeGuarded()
            return try await EmbeddedPostgres.start(dataDirectory: directory, isDurable: false)
        }
        self.server = server
        return try await server.value
    }

    static func nextNumber() -> Int { Self.number.add(1, ordering: .relaxed).newValue }
}
