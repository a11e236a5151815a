import Glibc

/// A pipe that wakes a thread which sleeps in poll(2).
final class WakeUpPipe: Sendable {
    /// For poll: readable after `signal()`.
    let readEnd: Int32
    private let writeEnd: Int32

    init() throws(PostgresError) {
        var ends: [Int32] = [-1, -1]
        // EMFILE, ENFILE; EINVAL for flags that these are not.
        // A pair of sockets rather than pipe(2), which can't set close-on-exec at once.
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else {
            throw PostgresError(.connectFailed, "socketpair: \(SystemFile.lastError)")
        }
        self.readEnd = ends[0]
        self.writeEnd = ends[1]
    }

    deinit {
        close(self.readEnd)
        close(self.writeEnd)
    }

    func signal() {
        var byte: UInt8 = 1
        // EAGAIN when the pipe is full: then the sleeper is awake already. The read end lives as long as we do.
        _ = write(self.writeEnd, &byte, 1)
    }

    func clear() {
        var bytes: (UInt64, UInt64) = (0, 0)
        while read(self.readEnd, &bytes, 16) == 16 {}
    }
}
