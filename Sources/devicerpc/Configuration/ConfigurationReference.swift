/// Renders the table of settings: `docs/configuration.md` and the tail of `serve --help`.
enum ConfigurationReference {
    /// All of `docs/configuration.md`.
    static func markdown() -> String {
        var text = """
            # Configuration

            <!-- Made by `devicerpc configuration-reference`; change Sources/devicerpc/Configuration/Settings.swift instead. -->

            Every setting has a name in the file, a name in the environment and, unless it is a secret, a flag of
            `devicerpc serve` (and of `devicerpc migrate`). Flags win over the environment, the environment over the file
            given with `--config` (YAML or JSON; `DEVICERPC_CONFIG` names it too), the file over the defaults. In a file the
            dots are levels, or stay as they are where the level has a value of its own (`auth: jwt`, `auth.jwks: keys.json`):

            ```yaml
            listen: 127.0.0.1:50051
            ops:
              listen: 127.0.0.1:9464
            log:
              format: json
            ```

            A wrong value stops the start with exit code 64 and names the setting, the problem and what is allowed; so do
            environment names with our prefix and file keys that are not in these tables. An empty environment variable
            counts as unset. Secrets are never printed.

            """
        for topic in SettingDescription.Topic.allCases where topic != .client {
            text += "\n## \(topic.rawValue)\n\n" + Self.table(Settings.all.filter { $0.topic == topic })
        }
        text += """

            ## Commands that call a server

            `create`, `get`, `watch`, `batch`, `list`, `sagas` and `bench` have settings of their own, in a file of their
            own: the one given with `--config` or named by `\(ClientSettings.fileVariable)`, otherwise
            `~/.config/devicerpc.yaml` (`.yml`, `.json`; under `XDG_CONFIG_HOME` if that is set) where it exists. Flags win
            over the environment, the environment over the file. `NO_COLOR` (any value) turns colours off.


            """
        return text + Self.table(ClientSettings.all)
    }

    private static func table(_ settings: [SettingDescription]) -> String {
        var text = "| Environment | File | Flag | Default | Allowed |\n|---|---|---|---|---|\n"
        for setting in settings {
            let cells = [
                "`\(setting.environmentName)`", "`\(setting.name)`", setting.hasFlag ? "`\(setting.flag)`" : "–",
                setting.defaultText.isEmpty ? "–" : Self.cell(setting.defaultText), Self.cell(setting.allowed),
            ]
            text += "| " + cells.joined(separator: " | ") + " |\n"
        }
        text += "\n"
        for setting in settings {
            text += "- `\(setting.environmentName)`\(setting.isSecret ? " (secret)" : ""): \(setting.summary)\n"
        }
        return text
    }

    /// The flags, for `serve --help`, in lines that the argument parser need not break.
    static func help() -> String {
        var text = Self.wrapped(
            "Settings, as flag or in the environment; docs/configuration.md has them with their names in a file.",
            indent: 0)
        for topic in SettingDescription.Topic.allCases where topic != .client {
            text += "\n\(topic.rawValue.uppercased()):\n"
            for setting in Settings.all where setting.topic == topic {
                let name = setting.hasFlag ? "\(setting.flag)  (\(setting.environmentName))" : setting.environmentName
                let fallback = setting.defaultText.isEmpty ? "" : " Default: \(setting.defaultText)."
                text += "  \(name)\n"
                text += Self.wrapped(setting.summary, indent: 6)
                text += Self.wrapped("Allowed: \(setting.allowed).\(fallback)", indent: 6)
            }
        }
        return text
    }

    private static func wrapped(_ text: String, indent: Int, width: Int = 78) -> String {
        let margin = String(repeating: " ", count: indent)
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ") {
            if !line.isEmpty, indent + line.count + 1 + word.count > width {
                lines.append(margin + line)
                line = ""
            }
            line += (line.isEmpty ? "" : " ") + word
        }
        lines.append(margin + line)
        return lines.joined(separator: "\n") + "\n"
    }

    private static func cell(_ text: String) -> String { String(text.flatMap { $0 == "|" ? "\\|" : "\($0)" }) }
}
