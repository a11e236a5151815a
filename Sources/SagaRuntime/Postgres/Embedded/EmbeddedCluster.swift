import Glibc
import Synchronization

/// The blocking side of `EmbeddedPostgres`: directories, users, initdb, pg_ctl.
struct EmbeddedCluster: Sendable {
    static let port = 5432
    static let role = "devicerpc"
    static let database = "devicerpc"

    /// The absolute path of the server's data directory, and of the cluster inside it.
    let dataDirectory: String
    let cluster: String
    let isDurable: Bool
    private let owner: Owner?
    private let mayTraverse: Bool
    /// Whoever waits for a start has changed their mind.
    private let cancellation = Cancellation()

    private final class Cancellation: Sendable {
        let isRequested = Atomic<Bool>(false)
    }

    /// The user that PostgreSQL runs as when we are root, which it refuses to be.
    private struct Owner: Sendable {
        var name: String
        var user: uid_t
        var group: gid_t
    }

    private var scratch: String { "\(self.dataDirectory)/postgres-setup.log" }
    private var startupLog: String { "\(self.cluster)/startup.log" }
    private static let startSeconds = 120
    private static let stopSeconds = 60
    private static let crashPatience = Duration.seconds(15)

    // MARK: Directories

    /// Makes sure of the data directory.
    init(dataDirectory: String, isDurable: Bool) throws(PostgresError) {
        self.isDurable = isDurable
        // pg_ctl hands paths to a shell, in double quotes.
        guard !dataDirectory.unicodeScalars.contains(where: { "\"$`\\\n".unicodeScalars.contains($0) }) else {
            throw PostgresError(
                .embedded,
                "the data directory's path must not contain a double quote, a dollar sign, a backtick, a backslash "
                    + "or a line break")
        }
        var owner: Owner?
        if geteuid() == 0 {
            guard let entry = getpwnam("postgres") else {
                throw PostgresError(
                    .embedded,
                    "PostgreSQL can't run as root, and there is no user postgres to run it as: "
                        + "create one, start as another user, or set DATABASE_URL")
            }
            owner = Owner(name: "postgres", user: entry.pointee.pw_uid, group: entry.pointee.pw_gid)
        }
        self.owner = owner
        // Others may pass through to what is theirs (the cluster), and see nothing else.
        guard SystemFile.makeDirectories(dataDirectory, mode: owner == nil ? 0o700 : 0o711) else {
            throw PostgresError(.embedded, "can't make the data directory \(dataDirectory): \(SystemFile.lastError)")
        }
        guard let resolved = realpath(dataDirectory, nil) else {
            throw PostgresError(.embedded, "\(dataDirectory): \(SystemFile.lastError)")
        }
        defer { free(resolved) }
        self.dataDirectory = String(cString: resolved)
        self.cluster = self.dataDirectory + "/postgres"
        self.mayTraverse = owner.map { Self.canTraverse(String(cString: resolved), $0) } ?? true
    }

    /// Whether `owner` may pass through every directory of the path.
    private static func canTraverse(_ path: String, _ owner: Owner) -> Bool {
        var prefix = ""
        for part in path.split(separator: "/") {
            prefix += "/\(part)"
            var info = stat()
            guard stat(prefix, &info) == 0 else { return false }
            let bit: mode_t = info.st_uid == owner.user ? 0o100 : info.st_gid == owner.group ? 0o010 : 0o001
            if info.st_mode & bit == 0 { return false }
        }
        return true
    }

    /// Where the socket is: in the data directory, or, where its path would be too long for the kernel (107 bytes) or
    /// hold a comma, which separates hosts for libpq, in /tmp under a name made from it.
    private var socketDirectory: String {
        let inside = "\(self.dataDirectory)/run"
        let isUsable = "\(inside)/.s.PGSQL.\(Self.port)".utf8.count <= 107 && !inside.utf8.contains(UInt8(ascii: ","))
        return isUsable ? inside : "/tmp/devicerpc-\(Self.fingerprint(of: self.dataDirectory))"
    }

    private func makeSocketDirectory() throws(PostgresError) -> String {
        let path = self.socketDirectory
        if mkdir(path, 0o700) != 0 && errno != EEXIST {
            throw PostgresError(.embedded, "can't make \(path): \(SystemFile.lastError)")
        }
        var info = stat()
        let user = self.owner?.user ?? geteuid()
        guard lstat(path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR, info.st_uid == user || info.st_uid == geteuid()
        else { throw PostgresError(.embedded, "\(path) is not a directory of ours") }
        try self.giveToOwner(path)
        guard chmod(path, 0o700) == 0 else { throw PostgresError(.embedded, "\(path): \(SystemFile.lastError)") }
        return path
    }

    /// FNV-1a, 64 bits: stable over processes, unlike `Hasher`.
    private static func fingerprint(of text: String) -> String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return String(hash, radix: 16)
    }

    private func giveToOwner(_ path: String) throws(PostgresError) {
        guard let owner = self.owner else { return }
        guard lchown(path, owner.user, owner.group) == 0 else {
            throw PostgresError(.embedded, "can't give \(path) to \(owner.name): \(SystemFile.lastError)")
        }
    }

    // MARK: Start

    /// Lets a start that is under way end soon, with an error, and without a server.
    func cancelStart() { self.cancellation.isRequested.store(true, ordering: .relaxed) }

    private var isCancelled: Bool { self.cancellation.isRequested.load(ordering: .relaxed) }

    /// The directory of the socket that the running server listens on. A start that fails leaves no server behind.
    func start() throws(PostgresError) -> String {
        do throws(PostgresError) {
            let socketDirectory = try self.startOrFind()
            if self.isCancelled { throw PostgresError(.embedded, "the start was given up") }
            return socketDirectory
        } catch {
            try? self.stop()
            throw error
        }
    }

    private func startOrFind() throws(PostgresError) -> String {
        var version: Int?
        if let text = SystemFile.read("\(self.cluster)/PG_VERSION") {
            version = Int(text.trimmingASCIIWhitespace())
        }
        let programs = try PostgresPrograms.find(version: version, scratch: self.scratch)
        if version == nil { try self.initialize(programs) }
        if let socketDirectory = self.runningServer() { return socketDirectory }

        let socketDirectory = try self.makeSocketDirectory()
        try self.writeSettings(programs, socketDirectory)
        // Left by a server that was killed: its children may take a moment to notice, and hold its shared memory until
        // then.
        let isCrashed = SystemFile.exists("\(self.cluster)/postmaster.pid")
        self.removeStaleLocks(socketDirectory)
        let deadline = BootTime.now + Self.crashPatience
        while true {
            // pg_ctl itself is let be: ended between fork and postmaster.pid it would leave a server that nobody knows.
            let outcome = try self.runAsOwner([
                programs.path("pg_ctl"), "start", "--pgdata", self.cluster, "--wait", "--timeout",
                "\(Self.startSeconds)",
                "--silent", "--log", self.startupLog,
            ]) { _ in if self.isCancelled { self.endAtOnce() } }
            if outcome.code == 0 { return socketDirectory }
            if self.isCancelled { throw PostgresError(.embedded, "the start was given up") }
            if isCrashed && BootTime.now < deadline {
                usleep(100_000)
                continue
            }
            let log = SystemFile.read(self.startupLog, limit: 1 << 20) ?? ""
            throw PostgresError(
                .embedded, "PostgreSQL does not start: \(outcome.output)",
                detail: String(decoding: Array(log.utf8.suffix(2000)), as: UTF8.self).trimmingASCIIWhitespace())
        }
    }

    /// A server of this cluster that runs already: its socket's directory.
    private func runningServer() -> String? {
        guard let process = self.postmaster, process.lines.count > 4 else { return nil }
        return process.lines[4].trimmingASCIIWhitespace()
    }

    /// The postmaster that postmaster.pid names, if it lives: its command line names the cluster, so that a process
    /// which merely got the number of a dead one is told apart. (Its working directory would too, but root in a
    /// container may not look at that of another user's process.)
    private var postmaster: (pid: pid_t, lines: [String])? {
        guard let text = SystemFile.read("\(self.cluster)/postmaster.pid") else { return nil }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        guard let first = lines.first, let pid = pid_t(first.trimmingASCIIWhitespace()), pid > 1 else { return nil }
        guard let commandLine = SystemFile.read("/proc/\(pid)/cmdline") else { return nil }
        let arguments = commandLine.split(separator: "\0")
        // Not pg_ctl, or somebody who looks at the directory.
        guard let program = arguments.first, program.split(separator: "/").last == "postgres",
            arguments.contains(where: { $0 == self.cluster })
        else { return nil }
        return (pid, lines)
    }

    /// The process id of the running server.
    var postmasterPID: pid_t? { self.postmaster?.pid }

    /// Tells the server to shut down (fast), and doesn't wait for it.
    func endAtOnce() {
        if let pid = self.postmasterPID { kill(pid, SIGINT) }
    }

    /// Removes lock files of a server that is gone, where their process id lives again: in a container ids start anew, and
    /// PostgreSQL takes whoever has the number for its predecessor. That it is none is certain, because a server of this
    /// cluster has the cluster on its command line, and nobody else starts one while we hold the lock on the data directory.
    private func removeStaleLocks(_ socketDirectory: String) {
        guard self.postmaster == nil else { return }
        let socketLock = "\(socketDirectory)/.s.PGSQL.\(Self.port).lock"
        for path in ["\(self.cluster)/postmaster.pid", socketLock] {
            guard let text = SystemFile.read(path), let first = text.split(separator: "\n").first,
                let pid = pid_t(String(first).trimmingASCIIWhitespace()), pid > 0
            else { continue }
            // Nobody has the number: PostgreSQL finds that out by itself, and looks for the dead one's children first.
            if kill(pid, 0) != 0, errno == ESRCH { continue }
            unlink(path)
        }
    }

    /// initdb beside, then rename: a crash in between leaves nothing that looks like a cluster. The directory's name is new each
    /// time: an initdb whose server was killed may still be at work in the one before.
    private func initialize(_ programs: PostgresPrograms) throws(PostgresError) {
        self.removeUnfinished()
        let fresh = "\(self.cluster).new-\(String(UInt32.random(in: .min ... .max), radix: 16))"
        guard mkdir(fresh, 0o700) == 0 else {
            throw PostgresError(.embedded, "can't make \(fresh): \(SystemFile.lastError)")
        }
        try self.giveToOwner(fresh)
        var arguments = [
            programs.path("initdb"), "--pgdata", fresh, "--username", Self.role, "--encoding", "UTF8", "--locale", "C",
            "--auth-local", "trust", "--auth-host", "reject", "--no-instructions",
        ]
        if !self.isDurable { arguments.append("--no-sync") }
        // With the servers that it starts; what it has made by then is removed by the next start.
        let outcome = try self.runAsOwner(arguments) { pid in if self.isCancelled { ChildProcess.kill(session: pid) } }
        guard outcome.code == 0 else {
            let hint =
                self.mayTraverse ? "" : " (user postgres may not pass through the directories above \(self.cluster))"
            throw PostgresError(.embedded, "initdb failed: \(outcome.output)\(hint)")
        }
        guard let text = SystemFile.read("\(fresh)/postgresql.conf"),
            SystemFile.write(
                text + "\ninclude_if_exists = 'devicerpc.conf'\n", to: "\(fresh)/postgresql.conf", mode: 0o600),
            rename(fresh, self.cluster) == 0
        else { throw PostgresError(.embedded, "can't set up \(self.cluster): \(SystemFile.lastError)") }
    }

    /// What starts have left that ended before it was a cluster. If it can't be removed (its initdb still writes there), the
    /// next start tries again: it is in nobody's way.
    private func removeUnfinished() {
        let prefix = "postgres.new"
        for name in SystemFile.names(in: self.dataDirectory) where name.hasPrefix(prefix) {
            _ = try? ChildProcess.run(
                ["/bin/rm", "-rf", "\(self.dataDirectory)/\(name)"], environment: Self.environment,
                outputPath: self.scratch)
        }
    }

    private func writeSettings(_ programs: PostgresPrograms, _ socketDirectory: String) throws(PostgresError) {
        let path = "\(self.cluster)/devicerpc.conf"
        var settings = EmbeddedSettings(isDurable: self.isDurable)
        settings.socketDirectory = socketDirectory
        settings.compressesWithLZ4 = try self.knowsLZ4(programs)
        guard SystemFile.write(settings.text, to: path, mode: 0o600) else {
            throw PostgresError(.embedded, "can't write \(path): \(SystemFile.lastError)")
        }
        try self.giveToOwner(path)
        // Only this start's words: it is shown when the start fails.
        unlink(self.startupLog)
    }

    /// Whether this build of the server has LZ4, which costs far less than its own compression.
    private func knowsLZ4(_ programs: PostgresPrograms) throws(PostgresError) -> Bool {
        let arguments = [
            programs.path("postgres"), "-C", "wal_compression", "-c", "wal_compression=lz4", "-D", self.cluster,
        ]
        return try self.runAsOwner(arguments).code == 0
    }

    // MARK: Stop

    /// Fast shutdown: sessions end, everything is written, the server exits.
    func stop() throws(PostgresError) {
        guard self.postmaster != nil else { return }
        // Empty by then, made anew at the next start.
        defer { rmdir(self.socketDirectory) }
        let version = SystemFile.read("\(self.cluster)/PG_VERSION").flatMap { Int($0.trimmingASCIIWhitespace()) }
        let programs = try PostgresPrograms.find(version: version, scratch: self.scratch)
        for mode in ["fast", "immediate"] {
            let outcome = try self.runAsOwner([
                programs.path("pg_ctl"), "stop", "--pgdata", self.cluster, "--mode", mode, "--wait", "--timeout",
                "\(Self.stopSeconds)", "--silent",
            ])
            if outcome.code == 0 || self.postmaster == nil { return }
        }
        throw PostgresError(.embedded, "PostgreSQL in \(self.cluster) does not stop")
    }

    // MARK: Users

    /// What its programs get as their environment: of ours the search path alone. A variable of the shell (PGOPTIONS, PGDATA,
    /// LC_ALL, LD_PRELOAD, …) must not make of it another server than the one that we set up.
    static var environment: [String] {
        let path = getenv("PATH").map { ["PATH=\(String(cString: $0))"] } ?? []
        return path + ["LC_ALL=C", "TZ=UTC"]
    }

    /// Runs a program of PostgreSQL's as the user that owns the cluster.
    private func runAsOwner(
        _ arguments: [String], whileRunning: ((pid_t) -> Void)? = nil
    ) throws(PostgresError) -> ChildProcess.Outcome {
        var prefix: [String] = []
        if let owner = self.owner {
            guard let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].first(where: { SystemFile.isExecutable($0) })
            else {
                throw PostgresError(.embedded, "setpriv (util-linux) is needed to run PostgreSQL as \(owner.name)")
            }
            prefix = [
                setpriv, "--reuid", "\(owner.user)", "--regid", "\(owner.group)", "--clear-groups", "--reset-env",
            ]
            if !self.mayTraverse {
                // The data directory is below one that is closed to others (/root): this one capability lets the server
                // pass.
                prefix += ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
            }
            prefix.append("--")
        }
        return try ChildProcess.run(
            prefix + arguments, environment: Self.environment, outputPath: self.scratch, whileRunning: whileRunning)
    }
}
