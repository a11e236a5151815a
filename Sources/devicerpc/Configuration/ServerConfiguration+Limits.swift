import RPCTransport

extension ServerConfiguration {
    /// What a client may cost the server; docs/abuse.md tells which attack each one answers.
    struct Limits: Sendable {
        private let values: [(key: Settings.Limits.Key<Int>, value: Int)]
        private let durations: [(key: Settings.Limits.Key<Duration>, value: Duration)]

        init(_ reader: SettingsReader) {
            self.values = Settings.Limits.integers.map { ($0.key, reader.read($0.setting)) }
            self.durations = Settings.Limits.durations.map { ($0.key, reader.read($0.setting)) }
        }

        func apply(to configuration: inout RPCServerConfiguration) {
            for (key, value) in self.values { configuration[keyPath: key] = value }
            for (key, value) in self.durations { configuration[keyPath: key] = value }
        }
    }
}
