package import Glibc

/// Starts other programs.
package enum ChildProcess {
    struct Outcome: Sendable {
        /// The exit code; 128 + the signal if one ended it.
        var code: Int32
        /// The last 8 KiB of standard output and standard error, in the order in which they came.
        var output: String
    }

    /// Starts a program in a session of its own: a Ctrl-C at our terminal is not for it, and no signal of ours stays
    /// blocked or ignored. It inherits descriptors 0, 1 and 2 as `standardFiles` sets them up and no other: a program
    /// that outlives us, or a connection of ours, must not keep our sockets open.
    ///
    /// - Parameters:
    ///   - arguments: the program, a path or a name to be found in PATH, and its arguments.
    ///   - environment: as `NAME=value`; nil: ours.
    /// - Throws: the `errno` of what failed.
    package static func spawn(
        _ arguments: [String], environment: [String]? = nil, standardFiles: (inout posix_spawn_file_actions_t) -> Void
    ) throws(Errno) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        // ENOMEM only, and not in glibc.
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        standardFiles(&actions)
        // In the child: whatever another thread opens meanwhile is closed too.
        guard Self.addCloseFrom(3, to: &actions) == 0 else { throw Errno(code: ENOSYS) }
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
        var variables = environment?.map { strdup($0) } ?? []
        variables.append(nil)
        defer { variables.forEach { free($0) } }
        var child = pid_t()
        let code =
            environment == nil
            ? posix_spawnp(&child, arguments[0], &actions, &attributes, argv, environ)
            : posix_spawnp(&child, arguments[0], &actions, &attributes, argv, variables)
        guard code == 0 else { throw Errno(code: code) }
        return child
    }

    /// An error number of the C library.
    package struct Errno: Error, CustomStringConvertible {
        package let code: Int32
        package var description: String { String(cString: strerror(self.code)) }
    }

    /// Runs a short-lived program and waits for it. Blocks: call it on a `DedicatedThread`. It reads nothing.
    ///
    /// - Parameters:
    ///   - environment: as `NAME=value`; nil: ours.
    ///   - outputPath: a scratch file for its output, replaced.
    ///   - whileRunning: called every few milliseconds with its process id.
    static func run(
        _ arguments: [String], environment: [String]? = nil, outputPath: String,
        whileRunning: ((pid_t) -> Void)? = nil
    ) throws(PostgresError) -> Outcome {
        let child: pid_t
        do throws(Errno) {
            child = try Self.spawn(arguments, environment: environment) { actions in
                posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
                posix_spawn_file_actions_addopen(
                    &actions, 1, outputPath, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o600)
                posix_spawn_file_actions_adddup2(&actions, 1, 2)
            }
        } catch {
            throw PostgresError(.embedded, "can't run \(arguments[0]): \(error)")
        }
        var status: Int32 = 0
        while true {
            let ended = waitpid(child, &status, whileRunning == nil ? 0 : WNOHANG)
            if ended > 0 { break }
            // ECHILD: someone ignores SIGCHLD or reaped it; its result is lost.
            if ended < 0, errno != EINTR { return Outcome(code: -1, output: Self.tail(outputPath)) }
            guard ended == 0 else { continue }
            whileRunning?(child)
            usleep(5000)
        }
        let signal = status & 0x7f
        return Outcome(code: signal == 0 ? (status >> 8) & 0xff : 128 + signal, output: Self.tail(outputPath))
    }

    /// Ends a program that `spawn` has started, and what it has started itself; waits up to two seconds for the latter to be gone.
    static func kill(session leader: pid_t) {
        Glibc.kill(-leader, SIGKILL)
        for _ in 0..<400 where Self.hasFollowers(leader) { usleep(5000) }
    }

    /// Whether anything but the leader, which is ours to wait for, lives in a session.
    private static func hasFollowers(_ leader: pid_t) -> Bool {
        SystemFile.names(in: "/proc").contains { name in
            guard let pid = pid_t(name), pid != leader, getsid(pid) == leader else { return false }
            // A dead one that nobody has asked for yet is gone.
            return SystemFile.read("/proc/\(name)/stat")?.contains(") Z ") == false
        }
    }

    /// POSIX_SPAWN_SETSID of glibc's spawn.h, which has it for _GNU_SOURCE only.
    private static let setSession: Int16 = 0x80

    /// `posix_spawn_file_actions_addclosefrom_np` of glibc 2.34, which its headers hide from Swift (`_GNU_SOURCE`). Not
    /// zero on an older glibc: then nothing is started.
    private static func addCloseFrom(_ first: Int32, to actions: inout posix_spawn_file_actions_t) -> Int32 {
        typealias AddCloseFrom = @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32
        guard let symbol = dlsym(nil, "posix_spawn_file_actions_addclosefrom_np") else { return ENOSYS }
        return unsafeBitCast(symbol, to: AddCloseFrom.self)(&actions, first)
    }

    private static func tail(_ path: String) -> String {
        let text = SystemFile.read(path, limit: 1 << 20) ?? ""
        return String(decoding: Array(text.utf8.suffix(8192)), as: UTF8.self).trimmingASCIIWhitespace()
    }
}
