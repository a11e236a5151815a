import Configuration
import Glibc
import Synchronization

/// Reads settings from flags over environment over a file, and keeps every problem that it meets, so that a start with
/// three mistakes names three mistakes.
final class SettingsReader {
    /// One place that values come from, highest precedence first.
    private struct Source {
        let provider: any ConfigProvider
        /// How people call the key there, e.g. `--listen` or `DEVICERPC_LISTEN`.
        let label: (SettingDescription) -> String
    }

    private let table: SettingsTable
    private let sources: [Source]
    private(set) var problems: [String] = []

    /// - Parameters:
    ///   - table: what settings there are.
    ///   - flags: what the command line said, by flag (`--listen`), as `CommandLineFlags.parse` returns it.
    ///   - environment: the process's environment.
    ///   - filePath: a `.json`, `.yaml` or `.yml` file.
    /// - Throws: `ConfigurationError` if the file can't be read at all.
    init(
        _ table: SettingsTable = .server, flags: [String: String], environment: [String: String], filePath: String?
    ) async throws(ConfigurationError) {
        self.table = table
        var flagValues: [AbsoluteConfigKey: ConfigValue] = [:]
        for (flag, value) in flags {
            guard let setting = table.byFlag[flag] else { continue }
            flagValues[setting.configKey] = ConfigValue(.string(value), isSecret: setting.isSecret)
        }
        var environmentValues: [AbsoluteConfigKey: ConfigValue] = [:]
        for setting in table.all {
            // An empty variable counts as unset, as compose files and unit files write it.
            guard let value = environment[setting.environmentName], !value.isEmpty else { continue }
            environmentValues[setting.configKey] = ConfigValue(.string(value), isSecret: setting.isSecret)
        }
        var sources = [
            Source(provider: InMemoryProvider(name: "flags", values: flagValues), label: \.flag),
            Source(
                provider: InMemoryProvider(name: "environment", values: environmentValues), label: \.environmentName),
        ]
        for name in environment.keys.sorted()
        where name.hasPrefix("DEVICERPC_") && table.byEnvironmentName[name] == nil
            && !table.otherEnvironmentNames.contains(name)
        {
            self.problems.append(
                "\(name): no such setting\(Self.suggestion(name, among: Array(table.byEnvironmentName.keys)))")
        }
        if let filePath {
            let origin = environment[table.fileVariable] == filePath ? table.fileVariable : "--config"
            let (provider, unknown) = try await Self.openFile(filePath, table, origin)
            sources.append(Source(provider: provider, label: { "\($0.name) in \(filePath)" }))
            for key in unknown.sorted() {
                self.problems.append(
                    "\(key) in \(filePath): no such setting\(Self.suggestion(key, among: Array(table.byFileKey.keys)))"
                )
            }
        }
        self.sources = sources
    }

    /// The value from the highest source that has the key, else the fallback. Problems are kept.
    func read<Value>(_ setting: Setting<Value>) -> Value {
        for source in self.sources {
            let text: String?
            do {
                text = try Self.text(of: setting.description, in: source.provider)
            } catch {
                self.report(setting.description, at: source, "is not a single value")
                return setting.fallback
            }
            guard let text else { continue }
            do throws(SettingProblem) {
                return try setting.parse(text)
            } catch {
                let shown = setting.description.isSecret ? "" : " \"\(text.prefix(200))\""
                self.report(setting.description, at: source, "\(error.text)\(shown.isEmpty ? "" : ":")\(shown)")
                return setting.fallback
            }
        }
        return setting.fallback
    }

    /// Which source the value comes from, the one that wins first; nil if it is the default.
    func rank(of setting: SettingDescription) -> Int? {
        self.sources.firstIndex { (try? Self.text(of: setting, in: $0.provider)) != nil }
    }

    /// Adds a problem that only several settings together have.
    func problem(_ setting: SettingDescription, _ text: String) {
        self.problems.append("\(setting.environmentName): \(text)")
    }

    /// Adds a problem with a value that was read well, named as where it comes from names it.
    func problem(withValueOf setting: SettingDescription, _ text: String) {
        let source = self.rank(of: setting).map { self.sources[$0] }
        self.problems.append("\(source?.label(setting) ?? setting.environmentName): \(text)")
    }

    /// - Throws: all problems at once, if there are any.
    func finish() throws(ConfigurationError) {
        if !self.problems.isEmpty { throw ConfigurationError(problems: self.problems) }
    }

    private func report(_ setting: SettingDescription, at source: Source, _ text: String) {
        // A setting that two parts of the server need is read twice.
        let problem = "\(source.label(setting)): \(text) (allowed: \(setting.allowed))"
        if !self.problems.contains(problem) { self.problems.append(problem) }
    }

    /// Files hold numbers and booleans as such: they are asked for as what they are, and turned into text.
    private static func text(of setting: SettingDescription, in provider: any ConfigProvider) throws -> String? {
        var mismatch: (any Error)?
        for type in [ConfigType.string, .int, .bool, .double] {
            do {
                guard let value = try provider.value(forKey: setting.configKey, type: type).value else { return nil }
                switch value.content {
                case .string(let text): return text
                case .int(let number): return String(number)
                case .bool(let flag): return String(flag)
                case .double(let number): return String(number)
                default: return nil
                }
            } catch {
                mismatch = error
            }
        }
        if let mismatch { throw mismatch }
        return nil
    }

    /// Opens a configuration file and finds the keys in it that are no settings.
    private static func openFile(
        _ path: String, _ table: SettingsTable, _ origin: String
    ) async throws(ConfigurationError) -> (any ConfigProvider, Set<String>) {
        // Parsers ask for each key whether it is a secret, which is the one place where they tell what they found.
        let unknown = UnknownKeys(table)
        let location = ConfigReader(
            provider: InMemoryProvider(values: ["filePath": ConfigValue(.string(path), isSecret: false)]))
        do {
            if path.hasSuffix(".json") {
                let provider = try await FileProvider<JSONSnapshot>(
                    parsingOptions: .init(secretsSpecifier: .dynamic { key, _ in unknown.isSecret(key) }),
                    config: location)
                return (provider, unknown.names)
            }
            if path.hasSuffix(".yaml") || path.hasSuffix(".yml") {
                let provider = try await FileProvider<YAMLSnapshot>(
                    parsingOptions: .init(secretsSpecifier: .dynamic { key, _ in unknown.isSecret(key) }),
                    config: location)
                return (provider, unknown.names)
            }
        } catch {
            throw ConfigurationError(problems: ["\(origin): \(path) \(Self.problem(error, with: path))"])
        }
        throw ConfigurationError(problems: [
            "\(origin): \(path.isEmpty ? "an empty path" : path) is neither .json nor .yaml nor .yml (allowed: the path of a file "
                + "that ends in one of them)"
        ])
    }

    /// What a parser says may quote the file, and with it a secret: only where it has stopped is passed on.
    private static func problem(_ error: any Error, with path: String) -> String {
        guard access(path, R_OK) == 0 else { return "can't be read: \(String(cString: strerror(errno)))" }
        let words = "\(error)".split(separator: ":", maxSplits: 2)
        var place = ""
        if words.count == 3, let line = Int(words[0]), let column = Int(words[1]) {
            place = ", at line \(line), column \(column)"
        }
        return "is no \(path.hasSuffix(".json") ? "JSON" : "YAML") of settings\(place) "
            + "(allowed: a mapping of names to values, each name once)"
    }

    private static func suggestion(_ name: String, among known: [String]) -> String {
        Spelling.nearest(to: name, among: known).map { " (did you mean \($0)?)" } ?? ""
    }
}

/// What a configuration file has beyond the known keys.
private final class UnknownKeys: Sendable {
    private let table: SettingsTable
    private let found = Mutex<Set<String>>([])

    init(_ table: SettingsTable) { self.table = table }

    func isSecret(_ key: String) -> Bool {
        if let setting = self.table.byFileKey[key] { return setting.isSecret }
        self.found.withLock { _ = $0.insert(key) }
        return false
    }

    var names: Set<String> { self.found.withLock { $0 } }
}

/// The start can't go on: every setting that is wrong, with its problem and what is allowed.
struct ConfigurationError: Error, CustomStringConvertible {
    let problems: [String]

    var description: String {
        "The configuration is not usable:\n" + self.problems.map { "  " + $0 }.joined(separator: "\n")
    }
}

extension SettingDescription {
    var configKey: AbsoluteConfigKey { AbsoluteConfigKey(self.name.split(separator: ".").map(String.init)) }
}
