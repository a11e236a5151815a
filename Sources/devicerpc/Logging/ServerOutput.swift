import Glibc
import Logging
import Synchronization

/// What a server says: its log on standard error, and where it can be reached on standard output.
///
/// Each goes through a queue, so that a pipe that nobody reads holds nothing up.
final class ServerOutput: Sendable {
    /// How long the end of the process waits for what is still to be written.
    static let patience: Duration = .seconds(1)
    /// The same for a server that is told to stop at once.
    static let patienceAtOnce: Duration = .milliseconds(200)

    private final class Format: Sendable { let value = Mutex(LogFormat.text) }

    private let format = Format()
    private let errors: OutputQueue
    private let announcements: OutputQueue

    init() {
        self.errors = OutputQueue(
            descriptor: STDERR_FILENO,
            notice: { [format] dropped in Self.notice(dropped, format.value.withLock { $0 }) })
        self.announcements = OutputQueue(descriptor: STDOUT_FILENO)
    }

    /// Of the line that says how many were dropped.
    func use(_ format: LogFormat) { self.format.value.withLock { $0 = format } }

    /// Log lines that were dropped since the start.
    var droppedLines: Int { self.errors.dropped }

    /// A flood of lesser lines leaves room for errors.
    @Sendable func log(_ line: String, _ level: Logger.Level) {
        self.errors.append(line, isImportant: level >= .error)
    }

    /// Why the process ends.
    func fail(_ text: String) { self.errors.append(text, isImportant: true) }

    func announce(_ text: String) { self.announcements.append(text) }

    /// Waits until all is written, but no longer than `limit`.
    func flush(within limit: Duration) async {
        let end = ContinuousClock.now + limit
        await self.errors.flush(within: limit)
        await self.announcements.flush(within: end - .now)
    }

    private static func notice(_ dropped: Int, _ format: LogFormat) -> String {
        let line = LogLine(
            time: WallClock.now(), level: .warning, label: "devicerpc",
            message: "\(dropped) lines dropped: the log was not read fast enough, or could not be written",
            metadata: ["lines_dropped": .stringConvertible(dropped)])
        return format == .json ? line.json() : line.text()
    }
}
