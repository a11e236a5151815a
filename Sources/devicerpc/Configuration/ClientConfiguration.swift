import FoundationEssentials
import RPCTransport

/// Which server the commands call, and how; validated.
struct ClientConfiguration: Sendable {
    var server: ListenAddress
    /// Never print it.
    var token: String?
    /// Nil: cleartext.
    var tls: RPCClientTLS?

    /// The token would cross a network that others may listen on.
    var sendsTokenInCleartext: Bool { self.token != nil && self.tls == nil && !self.server.isLoopback }

    /// Reads and validates everything: flags over environment over file over defaults.
    ///
    /// - Parameter filePath: of the file that was named; the one in the home directory counts if there is none.
    /// - Throws: `ConfigurationError` with all problems at once.
    static func load(
        flags: [String: String], environment: [String: String], filePath: String?
    ) async throws(ConfigurationError) -> ClientConfiguration {
        let named = filePath ?? environment[ClientSettings.fileVariable].flatMap { $0.isEmpty ? nil : $0 }
        let reader = try await SettingsReader(
            .client, flags: flags, environment: environment, filePath: named ?? Self.defaultFile(environment))
        let configuration = ClientConfiguration(reader)
        try reader.finish()
        return configuration
    }

    private init(_ reader: SettingsReader) {
        self.server = reader.read(ClientSettings.server)
        self.token = Self.token(reader)
        self.tls = Self.tls(reader)
        if self.server.port == 0 {
            reader.problem(
                withValueOf: ClientSettings.server.description,
                "has no port to call (allowed: \(ClientSettings.server.description.allowed))")
        }
    }

    /// `devicerpc.yaml` or `.json` where people keep such files, if it is there.
    private static func defaultFile(_ environment: [String: String]) -> String? {
        func variable(_ name: String) -> String? { environment[name].flatMap { $0.hasPrefix("/") ? $0 : nil } }
        guard let folder = variable("XDG_CONFIG_HOME") ?? variable("HOME").map({ $0 + "/.config" }) else { return nil }
        return ["yaml", "yml", "json"].map { "\(folder)/devicerpc.\($0)" }
            .first { FileManager.default.fileExists(atPath: $0) }
    }

    /// A token that was given directly and a file of one: the one from the place that wins counts.
    private static func token(_ reader: SettingsReader) -> String? {
        let (token, file) = (reader.read(ClientSettings.token), reader.read(ClientSettings.tokenFile))
        let tokenRank = reader.rank(of: ClientSettings.token.description)
        let fileRank = reader.rank(of: ClientSettings.tokenFile.description)
        if let tokenRank, tokenRank == fileRank {
            reader.problem(
                withValueOf: ClientSettings.tokenFile.description, "goes with no token beside it (allowed: one of them)"
            )
            return nil
        }
        guard let file, fileRank ?? .max < tokenRank ?? .max else {
            return Self.checked(token, reader, ClientSettings.token.description)
        }
        guard let text = try? String(contentsOfFile: file, encoding: .utf8) else {
            reader.problem(
                withValueOf: ClientSettings.tokenFile.description,
                "\(file) can't be read as text (allowed: a token's file)")
            return nil
        }
        return Self.checked(text.trimmed, reader, ClientSettings.tokenFile.description)
    }

    private static func checked(_ token: String?, _ reader: SettingsReader, _ setting: SettingDescription) -> String? {
        guard let token else { return nil }
        if token.isEmpty || !token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) {
            reader.problem(
                withValueOf: setting, "holds no token (allowed: \(ClientSettings.token.description.allowed))")
            return nil
        }
        return token
    }

    private static func tls(_ reader: SettingsReader) -> RPCClientTLS? {
        let tls = RPCClientTLS(
            trustFile: reader.read(ClientSettings.tlsCA), certificateFile: reader.read(ClientSettings.tlsCertificate),
            keyFile: reader.read(ClientSettings.tlsKey), serverName: reader.read(ClientSettings.tlsServerName))
        if tls.certificateFile != nil, tls.keyFile == nil {
            reader.problem(
                withValueOf: ClientSettings.tlsCertificate.description, "needs tls.key (--tls-key) beside it")
        }
        if tls.keyFile != nil, tls.certificateFile == nil {
            reader.problem(withValueOf: ClientSettings.tlsKey.description, "needs tls.cert (--tls-cert) beside it")
        }
        let given = [
            ClientSettings.tlsCA.description, ClientSettings.tlsCertificate.description,
            ClientSettings.tlsKey.description, ClientSettings.tlsServerName.description,
        ].filter { reader.rank(of: $0) != nil }
        switch reader.read(ClientSettings.tls) {
        case false?: return nil
        case nil where given.isEmpty: return nil
        case nil, true?: break
        }
        guard reader.problems.isEmpty else { return nil }
        do throws(RPCTLSError) {
            try tls.check()
        } catch {
            let setting =
                switch error.part {
                case .authorities: ClientSettings.tlsCA.description
                case .certificate: ClientSettings.tlsCertificate.description
                case .key: ClientSettings.tlsKey.description
                }
            reader.problem(withValueOf: setting, "\(error) (allowed: a PEM file)")
        }
        return tls
    }
}

extension String {
    /// Without white space at either end.
    fileprivate var trimmed: String {
        let start = self.drop { $0.isWhitespace }
        return String(start.reversed().drop { $0.isWhitespace }.reversed())
    }
}
