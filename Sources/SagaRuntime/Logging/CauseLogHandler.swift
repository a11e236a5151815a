import Logging

/// Passes lines on, of those with a cause as many as `LogCauses` allows.
struct CauseLogHandler: LogHandler {
    /// In a line's metadata: what it is about. Not passed on.
    static let causeKey = "cause"
    static let leftOutKey = "unlogged_before"

    private var inner: any LogHandler
    private let causes: LogCauses

    init(_ inner: any LogHandler, causes: LogCauses) {
        self.inner = inner
        self.causes = causes
    }

    var logLevel: Logger.Level {
        get { self.inner.logLevel }
        set { self.inner.logLevel = newValue }
    }
    var metadata: Logger.Metadata {
        get { self.inner.metadata }
        set { self.inner.metadata = newValue }
    }
    var metadataProvider: Logger.MetadataProvider? {
        get { self.inner.metadataProvider }
        set { self.inner.metadataProvider = newValue }
    }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.inner[metadataKey: key] }
        set { self.inner[metadataKey: key] = newValue }
    }

    func log(event: LogEvent) {
        guard case .string(let cause)? = event.metadata?[Self.causeKey] else { return self.inner.log(event: event) }
        var event = event
        event.metadata?[Self.causeKey] = nil
        if let leftOut = self.causes.admit(cause, event.level, event.message) {
            if leftOut > 0 { event.metadata?[Self.leftOutKey] = .stringConvertible(leftOut) }
        } else {
            guard self.logLevel <= .debug else { return }
            event.level = .debug
        }
        self.inner.log(event: event)
    }
}
