import Logging

/// Makes each event one line, as text for people or as a JSON object.
struct LineLogHandler: LogHandler {
    let label: String
    let format: LogFormat
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?
    /// Where finished lines go; a line ends with a line feed. Must not wait for anybody.
    let write: @Sendable (String, Logger.Level) -> Void

    init(
        label: String, format: LogFormat, level: Logger.Level, metadataProvider: Logger.MetadataProvider? = nil,
        write: @escaping @Sendable (String, Logger.Level) -> Void
    ) {
        self.label = label
        self.format = format
        self.logLevel = level
        self.metadataProvider = metadataProvider
        self.write = write
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var metadata = self.metadata
        if let provided = self.metadataProvider?.get() { metadata.merge(provided) { $1 } }
        if let own = event.metadata {
            if metadata.isEmpty { metadata = own } else { metadata.merge(own) { $1 } }
        }
        if let error = event.error { metadata["error"] = "\(error)" }
        let line = LogLine(
            time: WallClock.now(), level: event.level, label: self.label, message: "\(event.message)",
            metadata: metadata)
        self.write(self.format == .json ? line.json() : line.text(), event.level)
    }
}
