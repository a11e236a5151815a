import Glibc

/// Starts the adb server of this machine, as `adb start-server` does. The server is shared: it outlives this process,
/// and when several start it at once one of them wins.
enum ADBServerLauncher {
    /// Returns once `adb start-server` has ended; whether a server listens now is the caller's to ask.
    ///
    /// - Returns: false if there is no `adb` in PATH, or it failed or hung.
    static func start(port: Int, until deadline: ContinuousClock.Instant) async -> Bool {
        guard let process = Self.spawn(["adb", "-P", String(port), "start-server"]) else { return false }
        while true {
            var status: Int32 = 0
            let ended = waitpid(process, &status, WNOHANG)
            if ended == process { return status == 0 }
            if ended == -1, errno != EINTR { return false }
            if deadline <= .now || Task.isCancelled {
                kill(process, SIGKILL)
                // Killed, so that this returns at once; it must be waited for or it stays a zombie.
                while waitpid(process, &status, 0) == -1, errno == EINTR {}
                return false
            }
            try? await Task.sleep(for: .milliseconds(20))
        }
    }

    /// The child gets /dev/null and no other open file: the server lives on, and must not hold our sockets open.
    private static func spawn(_ arguments: [String]) -> pid_t? {
        var actions = posix_spawn_file_actions_t()
        guard posix_spawn_file_actions_init(&actions) == 0 else { return nil }
        defer { posix_spawn_file_actions_destroy(&actions) }
        guard posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0) == 0,
            posix_spawn_file_actions_adddup2(&actions, 0, 1) == 0,
            posix_spawn_file_actions_adddup2(&actions, 0, 2) == 0,
            Self.addCloseFrom(3, to: &actions)
        else { return nil }
        var attributes = posix_spawnattr_t()
        guard posix_spawnattr_init(&attributes) == 0 else { return nil }
        defer { posix_spawnattr_destroy(&attributes) }
        // A process group of its own: a Ctrl-C that stops us leaves it alone. No signal of ours stays blocked or ignored.
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        words.append(nil)
        defer { for word in words { free(word) } }
        var process = pid_t()
        return posix_spawnp(&process, arguments[0], &actions, &attributes, words, environ) == 0 ? process : nil
    }

    /// `posix_spawn_file_actions_addclosefrom_np` of glibc 2.34, which its headers hide from Swift (`_GNU_SOURCE`). False
    /// on an older glibc: then nothing is started.
    private static func addCloseFrom(_ first: Int32, to actions: inout posix_spawn_file_actions_t) -> Bool {
        typealias AddCloseFrom = @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32
        guard let symbol = dlsym(nil, "posix_spawn_file_actions_addclosefrom_np") else { return false }
        return unsafeBitCast(symbol, to: AddCloseFrom.self)(&actions, first) == 0
    }
}
