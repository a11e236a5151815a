import ArgumentParser
import Foundation

/// Which server is called, and how: flags over the environment over a file.
struct ConnectionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            A YAML or JSON file with these settings; DEVICERPC_CLIENT_CONFIG names one too. Otherwise \
            ~/.config/devicerpc.yaml, if it is there. Flags win over the environment, the environment over the file.
            """, valueName: "file"))
    var config: String?

    @Option(
        help: ArgumentHelp(
            "The server, its port from 1 to 65535 (DEVICERPC_SERVER; default: 127.0.0.1:50051).", valueName: "host:port"
        ))
    var server: String?

    @Option(
        help: ArgumentHelp(
            "The JWT that says who calls (DEVICERPC_TOKEN). Others see flags: better in the environment or a file."))
    var token: String?

    @Option(help: ArgumentHelp("A file with the token (DEVICERPC_TOKEN_FILE).", valueName: "file"))
    var tokenFile: String?

    @Flag(
        inversion: .prefixedNo,
        help: "Speak TLS (DEVICERPC_CLIENT_TLS=true). The default where another --tls flag or setting is given.")
    var tls: Bool?

    @Option(
        name: .customLong("tls-ca"),
        help: ArgumentHelp(
            "PEM: who the server's certificate must come from (DEVICERPC_CLIENT_TLS_CA; default: the system's).",
            valueName: "file"))
    var tlsCA: String?

    @Option(
        help: ArgumentHelp("PEM: the client's certificate and chain (DEVICERPC_CLIENT_TLS_CERT).", valueName: "file"))
    var tlsCert: String?

    @Option(help: ArgumentHelp("PEM: its private key (DEVICERPC_CLIENT_TLS_KEY).", valueName: "file"))
    var tlsKey: String?

    @Option(
        help: ArgumentHelp(
            "The name that the server's certificate must carry (DEVICERPC_CLIENT_TLS_SERVER_NAME; default: its host).",
            valueName: "name"))
    var tlsServerName: String?

    /// - Throws: `ConfigurationError` with everything that is wrong.
    func load() async throws(ConfigurationError) -> ClientConfiguration {
        let given: [(SettingDescription, String?)] = [
            (ClientSettings.server.description, self.server), (ClientSettings.token.description, self.token),
            (ClientSettings.tokenFile.description, self.tokenFile),
            (ClientSettings.tls.description, self.tls.map { "\($0)" }),
            (ClientSettings.tlsCA.description, self.tlsCA), (ClientSettings.tlsCertificate.description, self.tlsCert),
            (ClientSettings.tlsKey.description, self.tlsKey),
            (ClientSettings.tlsServerName.description, self.tlsServerName),
        ]
        var flags: [String: String] = [:]
        for (setting, value) in given { flags[setting.flag] = value }
        return try await ClientConfiguration.load(
            flags: flags, environment: ProcessInfo.processInfo.environment, filePath: self.config)
    }
}
