/// Every configuration key of the commands that call a server: the table that the sources, `docs/configuration.md` and
/// the errors are made from.
enum ClientSettings {
    static let server = Setting<ListenAddress>.address(
        "server", "DEVICERPC_SERVER", .client, default: ListenAddress(host: "127.0.0.1", port: 50051),
        allowed: "host:port, an IPv6 host in brackets; the port from 1 to 65535", "The server.")
    static let token = Setting<String?>.optionalText(
        "token", "DEVICERPC_TOKEN", .client, allowed: "printable ASCII without spaces", isSecret: true,
        "The JWT that says who calls, sent as `authorization: Bearer …`. Everybody on a machine sees flags: better in the "
            + "environment or in a file.")
    static let tokenFile = Setting<String?>.optionalText(
        "token-file", "DEVICERPC_TOKEN_FILE", .client, allowed: "a path",
        "A file with the token, instead of the token itself; white space around it doesn't count.")
    static let tls = Setting<Bool?>.optionalBoolean(
        "tls.enabled", "DEVICERPC_CLIENT_TLS", .client, defaultText: "true where another tls setting is given",
        "Whether to speak TLS to the server.", ownFlag: "--tls")
    static let tlsCA = Setting<String?>.optionalText(
        "tls.ca", "DEVICERPC_CLIENT_TLS_CA", .client, defaultText: "the system's", allowed: "a path",
        "PEM file of the authorities that the server's certificate must come from.")
    static let tlsCertificate = Setting<String?>.optionalText(
        "tls.cert", "DEVICERPC_CLIENT_TLS_CERT", .client, allowed: "a path",
        "PEM file of the certificate, with its chain, that is shown to a server that asks for one.")
    static let tlsKey = Setting<String?>.optionalText(
        "tls.key", "DEVICERPC_CLIENT_TLS_KEY", .client, allowed: "a path",
        "PEM file of that certificate's private key.")
    static let tlsServerName = Setting<String?>.optionalText(
        "tls.server-name", "DEVICERPC_CLIENT_TLS_SERVER_NAME", .client, defaultText: "the server's host",
        allowed: "a host name",
        "The name that the server's certificate must carry, unless it carries the address that is "
            + "connected to.")

    static let all: [SettingDescription] = [
        server.description, token.description, tokenFile.description, tls.description, tlsCA.description,
        tlsCertificate.description, tlsKey.description, tlsServerName.description,
    ]

    static let environmentNames = Set(Self.all.map(\.environmentName))

    /// Names the configuration file of these commands.
    static let fileVariable = "DEVICERPC_CLIENT_CONFIG"
}
