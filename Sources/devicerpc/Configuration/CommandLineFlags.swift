/// Reads `--flag value` and `--flag=value` against the table of settings.
enum CommandLineFlags {
    /// - Parameter arguments: what the argument parser left over.
    /// - Returns: values by flag; the last one wins.
    /// - Throws: `ConfigurationError` with every argument that is not understood.
    static func parse(_ arguments: [String]) throws(ConfigurationError) -> [String: String] {
        var values: [String: String] = [:]
        var problems: [String] = []
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            guard argument.hasPrefix("--") else {
                problems.append("\(argument): not expected here")
                continue
            }
            let sides = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let flag = sides[0]
            guard let setting = SettingsTable.server.byFlag[flag] else {
                if let hidden = Settings.all.first(where: { $0.flag == flag }) {
                    problems.append("\(flag): has no flag, since others could see it; set \(hidden.environmentName)")
                } else {
                    let near = Spelling.nearest(to: flag, among: Array(SettingsTable.server.byFlag.keys))
                    problems.append("\(flag): no such flag\(near.map { " (did you mean \($0)?)" } ?? "")")
                }
                if sides.count == 1, let next = rest.first, !next.hasPrefix("--") { rest.removeFirst() }
                continue
            }
            if sides.count == 2 {
                values[flag] = sides[1]
            } else if setting.isSwitch, rest.first.map({ $0.hasPrefix("--") }) ?? true {
                values[flag] = "true"
            } else if let value = rest.popFirst() {
                values[flag] = value
            } else {
                problems.append("\(flag): a value is missing (allowed: \(setting.allowed))")
            }
        }
        if !problems.isEmpty { throw ConfigurationError(problems: problems) }
        return values
    }
}

extension SettingDescription {
    /// A flag that stands for `true` when it is given without a value.
    var isSwitch: Bool { self.allowed == "true, false" }
}
