import Glibc
import Synchronization

/// A PostgreSQL server of our own, in the data directory, for running without a database to be set up first.
///
/// It listens on a unix socket only, which only its own user (and root) can use. It is set up at its first start. If
/// this process dies without stopping it, it lives on, and the next start finds it.
public final class EmbeddedPostgres: Sendable {
    private let socketDirectory: String
    private let cluster: EmbeddedCluster
    /// The descriptor that holds the lock on the data directory; -1 once stopped.
    private let lock: Mutex<Int32>

    private init(socketDirectory: String, cluster: EmbeddedCluster, lock: Int32) {
        self.socketDirectory = socketDirectory
        self.cluster = cluster
        self.lock = Mutex(lock)
    }

    deinit { self.lock.withLock { if $0 >= 0 { close($0) } } }

    /// Starts the server in `<dataDirectory>/postgres`, or takes over the one that runs there, and waits until it
    /// serves.
    ///
    /// Where we are root it runs as user `postgres`.
    ///
    /// - Throws: `embedded`, with what is to be done about it.
    public static func start(dataDirectory: String) async throws(PostgresError) -> EmbeddedPostgres {
        try await Self.start(dataDirectory: dataDirectory, isDurable: true)
    }

    /// - Parameter isDurable: false for tests only: nothing is synced, a crash of the machine loses everything.
    package static func start(dataDirectory: String, isDurable: Bool) async throws(PostgresError) -> EmbeddedPostgres {
        let cluster = try await DedicatedThread.run(name: "embedded-pg") { () throws(PostgresError) in
            try EmbeddedCluster(dataDirectory: dataDirectory, isDurable: isDurable)
        }
        let lock = try Self.lock("\(cluster.dataDirectory)/postgres.lock")
        Self.kept.withLock { $0.append(cluster) }
        let result: Result<String, PostgresError> = await withTaskCancellationHandler {
            do throws(PostgresError) {
                return .success(
                    try await DedicatedThread.run(name: "embedded-pg") { () throws(PostgresError) in
                        try cluster.start()
                    })
            } catch {
                return .failure(error)
            }
        } onCancel: {
            cluster.cancelStart()
        }
        let server: EmbeddedPostgres
        switch result {
        case .success(let directory):
            server = EmbeddedPostgres(socketDirectory: directory, cluster: cluster, lock: lock)
        case .failure(let error):
            Self.letGo(cluster)
            close(lock)
            throw error
        }
        do throws(PostgresError) {
            try await server.prepare()
            return server
        } catch {
            // Whatever went wrong: no server is left without a keeper.
            await server.stop()
            throw error
        }
    }

    private func prepare() async throws(PostgresError) {
        do throws(PostgresError) {
            try await self.makeDatabase(EmbeddedCluster.database, ifMissing: true)
        } catch  where error.code == .connectFailed && self.postmasterPID == nil && !Task.isCancelled {
            // It was found running, on its way out.
            let cluster = self.cluster
            _ = try await DedicatedThread.run(name: "embedded-pg") { () throws(PostgresError) in try cluster.start() }
            try await self.makeDatabase(EmbeddedCluster.database, ifMissing: true)
        }
        if Task.isCancelled { throw PostgresError(.embedded, "the start was given up") }
    }

    // MARK: Surroundings

    /// The servers that this process keeps.
    private static let kept = Mutex<[EmbeddedCluster]>([])

    private static func letGo(_ cluster: EmbeddedCluster) {
        Self.kept.withLock { $0.removeAll { $0.cluster == cluster.cluster } }
    }

    /// For a process that ends this very moment: tells its servers to shut down, and doesn't wait.
    public static func endAllAtOnce() {
        for cluster in Self.kept.withLock({ $0 }) { cluster.endAtOnce() }
    }

    /// Removes libpq's variables (`PGSERVICE`, `PGOPTIONS`, `PGSSLMODE`, …) from this process' environment: the embedded
    /// server is reached by what `conninfo` says and by nothing else. To be called before other threads read the
    /// environment.
    public static func forgetEnvironment() {
        var names: [String] = []
        var entry = environ
        while let text = entry.pointee {
            let name = String(cString: text).prefix { $0 != "=" }
            if name.hasPrefix("PG") { names.append(String(name)) }
            entry += 1
        }
        for name in names { unsetenv(name) }
    }

    // MARK: Life

    /// Stops the server (fast shutdown: open sessions are ended, nothing is lost). Harmless when it is stopped already.
    public func stop() async {
        let lock = self.lock.withLock { lock in
            defer { lock = -1 }
            return lock
        }
        guard lock >= 0 else { return }
        let cluster = self.cluster
        Self.letGo(cluster)
        _ = try? await DedicatedThread.run(name: "embedded-pg") { () throws(PostgresError) in
            defer { close(lock) }
            try cluster.stop()
        }
    }

    /// How to connect to it.
    public var conninfo: String { self.conninfo(database: EmbeddedCluster.database) }
    /// Where the server keeps its files.
    public var clusterDirectory: String { self.cluster.cluster }
    /// The process id of the running server.
    public var postmasterPID: Int32? { self.cluster.postmasterPID }

    /// Lets go of the server as a process does that dies: it runs on, without a keeper.
    package func abandonForTesting() {
        self.lock.withLock { lock in
            if lock >= 0 { close(lock) }
            lock = -1
        }
        Self.letGo(self.cluster)
    }

    /// How to connect to another database of this server.
    package func conninfo(database: String) -> String {
        var quoted = ""
        for character in self.socketDirectory {
            if character == "'" || character == "\\" { quoted.append("\\") }
            quoted.append(character)
        }
        return "host='\(quoted)' port=\(EmbeddedCluster.port) user=\(EmbeddedCluster.role) dbname=\(database)"
    }

    /// - Parameter name: letters, digits and underscores.
    package func makeDatabase(_ name: String, ifMissing: Bool = false) async throws(PostgresError) {
        try await self.administer { connection async throws(PostgresError) in
            do throws(PostgresError) {
                try await connection.execute("CREATE DATABASE \"\(name)\"", timeout: .seconds(60))
            } catch  where ifMissing && error.sqlstate == "42P04" {
                // duplicate_database
            }
        }
    }

    package func dropDatabase(_ name: String) async throws(PostgresError) {
        try await self.administer { connection async throws(PostgresError) in
            try await connection.execute("DROP DATABASE IF EXISTS \"\(name)\" WITH (FORCE)", timeout: .seconds(60))
        }
    }

    /// Lends a connection to the maintenance database. A server that was found may still be starting up, recovering or
    /// even shutting down (57P03): it is waited for.
    private func administer(
        _ body: (PostgresConnection) async throws(PostgresError) -> Void
    ) async throws(PostgresError) {
        let configuration = PostgresConfiguration(
            conninfo: self.conninfo(database: "postgres"), statementTimeout: .seconds(60))
        let deadline = BootTime.now + Self.readyTimeout
        while true {
            do throws(PostgresError) {
                let connection = try await PostgresConnection.connect(configuration)
                try await body(connection)
                await connection.close()
                return
            } catch  where error.code == .connectFailed && BootTime.now < deadline && self.postmasterPID != nil {
                if Task.isCancelled { throw error }
                try? await Task.sleep(for: .milliseconds(50))
            }
        }
    }
    private static let readyTimeout = Duration.seconds(60)

    private static func lock(_ path: String) throws(PostgresError) -> Int32 {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw PostgresError(.embedded, "can't open \(path): \(SystemFile.lastError)") }
        // EWOULDBLOCK: another process holds it; EINTR, ENOLCK: no lock either way.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            throw PostgresError(.embedded, "the data directory is in use by another devicerpc (\(path) is locked)")
        }
        return descriptor
    }
}
