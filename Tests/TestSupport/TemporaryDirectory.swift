import Glibc
import SagaRuntime

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
        defer { close(ends[0]) }
        do {
            _ = try ChildProcess.spawn(["/bin/sh", "-c", script, "sh", directory]) { actions in
                posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
                posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
                posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
            }
        } catch {
            throw Failure(message: "posix_spawn: \(error)")
        }
        // ends[1] stays open until the process ends.
    }
}
