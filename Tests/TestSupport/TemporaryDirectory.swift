import Glibc

/// Directories for tests that go away with the process, together with a PostgreSQL server that runs in them.
public enum TemporaryDirectory {
    public struct Failure: Error { public var message: String }

    /// Makes a directory which a guard process removes when this process has ended. If
    /// `<directory>/postgres/postmaster.pid` exists by then, the guard stops that server first.
    public static func makeGuarded() throws -> String {
        let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(base)/devicerpc-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure(message: "mkdtemp: \(String(cString: strerror(errno)))") }
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // User postgres, as which the server runs under root, must pass.
        chmod(directory, 0o711)
        try Self.startGuard(of: directory)
        return directory
    }

    /// The guard reads from a pipe that nobody writes to: it ends when the last writer, this process, is gone.
    private static func startGuard(of directory: String) throws {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw Failure(message: "socketpair: \(String(cString: strerror(errno)))")
        }
        let script = """
            read -r _
            pid=$(head -n 1 "$1/postgres/postmaster.pid" 2>/dev/null) && kill -CONT "$pid" && kill -QUIT "$pid"
            tries=0
            while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
            rm -rf "$1"
            """
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        // A session of its own (0x80 is POSIX_SPAWN_SETSID): a Ctrl-C is not for it.
        posix_spawnattr_setflags(&attributes, 0x80)
        let words = ["/bin/sh", "-c", script, "sh", directory]
        let arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var child: pid_t = 0
        let code = posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, environ)
        close(ends[0])
        guard code == 0 else { throw Failure(message: "posix_spawn: \(String(cString: strerror(code)))") }
        // ends[1] stays open until the process ends.
    }
}
