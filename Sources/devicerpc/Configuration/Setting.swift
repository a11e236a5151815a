/// One configuration key: what it is called in every place, what it may be, and what it is when nobody says.
///
/// The texts feed `devicerpc serve --help`, `docs/configuration.md` and the errors; nothing else describes a key.
struct Setting<Value: Sendable>: Sendable {
    let description: SettingDescription
    /// What applies when no source has the key.
    let fallback: Value
    /// Reads the value's text. Throws what is wrong with it, without repeating the text.
    let parse: @Sendable (String) throws(SettingProblem) -> Value
}

/// The part of a `Setting` that documentation and the sources need.
struct SettingDescription: Sendable, Equatable {
    /// Which chapter of the reference the key is told in.
    enum Topic: String, Sendable, CaseIterable {
        case server = "Server"
        case connections = "Connections"
        case limits = "Limits"
        case security = "Security"
        case database = "Database and engine"
        case provisioning = "Provisioning"
        case redroid = "Redroid provider"
        case userService = "User service"
        case logging = "Logging"
        case client = "Client"
    }

    /// The key in a configuration file: words joined by dashes, levels by dots.
    let name: String
    let environmentName: String
    let topic: Topic
    /// Sentences for people.
    let summary: String
    /// What is allowed, e.g. `text, json`.
    let allowed: String
    /// The default as one would write it; empty if there is none.
    let defaultText: String
    /// Never printed, neither in errors nor in logs.
    let isSecret: Bool
    /// Whether there is a command-line flag. Keys and passwords have none, since everybody on a machine sees flags.
    let hasFlag: Bool
    /// The flag, where it isn't made from the name.
    var ownFlag: String?

    /// e.g. `--ops-listen`.
    var flag: String { self.ownFlag ?? "--" + self.name.replacingDots() }
}

/// What is wrong with a value; it never holds the value itself.
struct SettingProblem: Error, Sendable, Equatable {
    let text: String
    init(_ text: String) { self.text = text }
}

extension String {
    fileprivate func replacingDots() -> String { String(self.map { $0 == "." ? "-" : $0 }) }
}
