package import Logging
import Synchronization

/// Thins a log: a cause that keeps coming leaves one line a minute, and the next line says how many were left out. What is
/// left out still stands at level `debug`.
///
///     let logger = causes.thinning(logger)
///     logger.log(.warning, cause: "lease", "the lease was not renewed: \(error)")
///
/// Not for what an operator has to look after one by one: a saga that is parked or quarantined always has its own line.
package final class LogCauses: Sendable {
    package static let interval: Duration = .seconds(60)
    /// Causes that are told apart. All further ones share a line a minute.
    package static let maximumCauses = 256

    private let now: @Sendable () -> BootTime
    private let allowance = Mutex(CauseAllowance(interval: LogCauses.interval, capacity: LogCauses.maximumCauses))

    package init(now: @escaping @Sendable () -> BootTime = { .now }) { self.now = now }

    /// `logger`, but that its lines with a cause are thinned, together with those of all others that this made.
    package func thinning(_ logger: Logger) -> Logger {
        var logger = logger
        logger.handler = CauseLogHandler(logger.handler, causes: self)
        return logger
    }

    /// Says how many lines were left out of causes that have not come again since their minute ended. To be called every
    /// few seconds.
    package func tellLeftOut(to logger: Logger) {
        for rest in self.allowance.withLock({ $0.takeQuiet(at: self.now()) }) {
            logger.log(
                level: rest.level, "\(rest.message) (the last of several)",
                metadata: [CauseLogHandler.leftOutKey: .stringConvertible(rest.leftOut)])
        }
    }

    /// - Returns: how many lines of the cause were left out before this one; nil: it is left out too.
    func admit(_ cause: String, _ level: Logger.Level, _ message: Logger.Message) -> Int? {
        self.allowance.withLock { $0.admit(cause, level, message, at: self.now()) }
    }
}

extension Logger {
    /// Logs a line that is one of many with the same cause (`LogCauses`).
    ///
    /// - Parameter cause: the same in all lines that say the same: not the name of one saga, device or connection.
    package func log(
        _ level: Logger.Level, cause: String, _ message: @autoclosure () -> Logger.Message,
        metadata: @autoclosure () -> Logger.Metadata = [:]
    ) {
        self.log(
            level: level, message(), metadata: metadata().merging([CauseLogHandler.causeKey: .string(cause)]) { $1 })
    }
}
