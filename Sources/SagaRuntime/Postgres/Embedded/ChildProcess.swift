import Glibc

/// Runs a short-lived program and waits for it. Blocks: call it on a `DedicatedThread`.
enum ChildProcess {
    struct Outcome: Sendable {
        /// The exit code; 128 + the signal if one ended it.
        var code: Int32
        /// The last 8 KiB of standard output and standard error, in the order in which they came.
        var output: String
    }

    /// Runs `arguments[0]`, a path, with the rest as its arguments, in a session of its own: a Ctrl-C at our terminal
    /// is not for it. It inherits no descriptor, and reads nothing.
    ///
    /// - Parameter outputPath: a scratch file for its output, replaced.
    static func run(_ arguments: [String], outputPath: String) throws(PostgresError) -> Outcome {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        // ENOMEM only, and not in glibc.
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        let flags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, outputPath, flags, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        // A server that outlives us must not keep our listening sockets.
        for descriptor in Self.inheritableDescriptors() { posix_spawn_file_actions_addclose(&actions, descriptor) }
        var noSignals = sigset_t()
        sigemptyset(&noSignals)
        var allSignals = sigset_t()
        sigfillset(&allSignals)
        posix_spawnattr_setsigmask(&attributes, &noSignals)
        posix_spawnattr_setsigdefault(&attributes, &allSignals)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) | Self.setSession)

        var argv = arguments.map { strdup($0) }
        argv.append(nil)
        defer { argv.forEach { free($0) } }
        var child: pid_t = 0
        let code = posix_spawn(&child, arguments[0], &actions, &attributes, argv, environ)
        guard code == 0 else {
            throw PostgresError(.embedded, "can't run \(arguments[0]): \(String(cString: strerror(code)))")
        }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0 {
            // ECHILD: someone ignores SIGCHLD or reaped it; its result is lost.
            guard errno == EINTR else { return Outcome(code: -1, output: Self.tail(outputPath)) }
        }
        let signal = status & 0x7f
        return Outcome(code: signal == 0 ? (status >> 8) & 0xff : 128 + signal, output: Self.tail(outputPath))
    }

    /// POSIX_SPAWN_SETSID of glibc's spawn.h, which has it for _GNU_SOURCE only.
    private static let setSession: Int16 = 0x80

    /// Descriptors above 2 without close-on-exec: some library's, since ours all have it.
    private static func inheritableDescriptors() -> [Int32] {
        guard let directory = opendir("/proc/self/fd") else { return [] }
        defer { closedir(directory) }
        var result: [Int32] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let descriptor = Int32(name), descriptor > 2 else { continue }
            let flags = fcntl(descriptor, F_GETFD)
            if flags >= 0 && flags & FD_CLOEXEC == 0 { result.append(descriptor) }
        }
        return result
    }

    private static func tail(_ path: String) -> String {
        let text = SystemFile.read(path, limit: 1 << 20) ?? ""
        return String(decoding: Array(text.utf8.suffix(8192)), as: UTF8.self).trimmingASCIIWhitespace()
    }
}
