/// Settings that are read together, by each of their names.
struct SettingsTable: Sendable {
    let all: [SettingDescription]
    let byFileKey: [String: SettingDescription]
    let byFlag: [String: SettingDescription]
    let byEnvironmentName: [String: SettingDescription]
    /// Environment names with our prefix that others read.
    let otherEnvironmentNames: Set<String>
    /// The environment variable that names the file.
    let fileVariable: String

    init(_ all: [SettingDescription], otherEnvironmentNames: Set<String>, fileVariable: String) {
        self.fileVariable = fileVariable
        self.all = all
        self.byFileKey = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })
        self.byFlag = Dictionary(uniqueKeysWithValues: all.filter(\.hasFlag).map { ($0.flag, $0) })
        self.byEnvironmentName = Dictionary(uniqueKeysWithValues: all.map { ($0.environmentName, $0) })
        self.otherEnvironmentNames = otherEnvironmentNames
    }

    /// Of `serve` and `migrate`.
    static let server = SettingsTable(
        Settings.all, otherEnvironmentNames: Settings.otherEnvironmentNames.union(ClientSettings.environmentNames),
        fileVariable: "DEVICERPC_CONFIG")

    /// Of the commands that call a server.
    static let client = SettingsTable(
        ClientSettings.all,
        otherEnvironmentNames: Settings.otherEnvironmentNames.union(Settings.all.map(\.environmentName)),
        fileVariable: ClientSettings.fileVariable)
}
