import Glibc
import SagaRuntime

/// Starts the adb server of this machine, as `adb start-server` does. The server is shared: it outlives this process,
/// and when several start it at once one of them wins.
enum ADBServerLauncher {
    /// Returns once `adb start-server` has ended; whether a server listens now is the caller's to ask.
    ///
    /// - Returns: false if there is no `adb` in PATH, or it failed or hung.
    static func start(port: Int, until deadline: ContinuousClock.Instant) async -> Bool {
        let process = try? ChildProcess.spawn(["adb", "-P", String(port), "start-server"]) { actions in
            posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0)
            posix_spawn_file_actions_adddup2(&actions, 0, 1)
            posix_spawn_file_actions_adddup2(&actions, 0, 2)
        }
        guard let process else { return false }
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
}
