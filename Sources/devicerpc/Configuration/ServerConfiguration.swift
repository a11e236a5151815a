import DeviceProvisioning
import DeviceRPC
import FoundationEssentials
import Logging
import RPCTransport
import SagaRuntime

/// The server's configuration, validated: what `Server` is wired from.
struct ServerConfiguration: Sendable {
    struct Listeners: Sendable {
        var rpc: ListenAddress
        var operators: ListenAddress
        var drainTimeout: Duration
        /// 0: one per core.
        var eventLoops: Int
        var maximumMessageBytes: Int
        /// `nil`: cleartext.
        var tls: RPCServerTLS?
    }

    struct Database: Sendable {
        /// A libpq URI or conninfo; `nil`: the embedded PostgreSQL. Holds a password, perhaps: never print it.
        var url: String?
        var journalConnections: Int
        var queryConnections: Int
        var isTransactionPooled: Bool
        /// Each server's time to let one connection in.
        var connectTimeout: Duration
        /// How long a request waits for a pooled connection.
        var acquireTimeout: Duration
        /// How long days of sagas are kept; zero: for good.
        var retention: Duration
        var retentionTime: DailyTime
        /// A database without a lease for so long may be a copy; zero: never.
        var restoreSuspect: Duration
    }

    struct Engine: Sendable {
        /// The replica's name; `nil`: a unique one.
        var instance: String?
        var installation: String
        var maximumSagas: Int
        var maximumSagasPerUser: Int
    }

    struct Provisioning: Sendable {
        /// `nil`: a request must name its provider.
        var defaultProvider: String?
        /// Those of DEVICERPC_SITES; `nil`: those that the settings below stand for.
        var sites: [SiteConfiguration]?
        var isSimulatedEnabled: Bool
        var simulatedLatency: Duration
        var simulatedBoot: Duration
        /// 0: as many as are needed.
        var simulatedHosts: Int
        var simulatedOptions: String?
        var portCoolDown: Duration
        var adbPorts: ClosedRange<Int>
        var webRTCPorts: ClosedRange<Int>
        var isRedroidEnabled: Bool
        /// What the redroid provider reads, by environment name (`RedroidConfiguration.keys`).
        var redroidEnvironment: [String: String]

        /// How many Docker engines there are.
        var engines: Int { self.sites.map { $0.count { $0.kind == .redroid } } ?? (self.isRedroidEnabled ? 1 : 0) }
    }

    struct UserService: Sendable {
        var url: String
        var isIdempotent: Bool
        var doubt: QuotaConfiguration.Doubt
        var timeout: Duration
        /// A PEM file; `nil`: the system's.
        var authorities: String?
        /// Never print it.
        var jwtSecret: String
    }

    struct Log: Sendable {
        var level: Logger.Level
        var format: LogFormat
        /// Whether each call has a line.
        var isAccessLogged: Bool
    }

    var listeners: Listeners
    var connections: ConnectionConfiguration
    var limits: Limits
    /// `nil`: callers are not asked who they are.
    var authentication: AuthenticatorConfiguration?
    var database: Database
    var engine: Engine
    var provisioning: Provisioning
    /// `nil`: quota is not reported.
    var userService: UserService?
    var log: Log
    /// Always set: the default depends on who runs the server.
    var dataDirectory: String
    /// Where the lock lies that proves a predecessor's death; `nil` with a database of one's own and no data directory
    /// named: replicas on one machine must not share the default.
    var lockDirectory: String?

    /// What the configuration is for.
    enum Purpose: Sendable {
        case serving
        /// Only the database counts: no provider need be named.
        case migrating
    }

    /// Reads and validates everything.
    ///
    /// - Throws: `ConfigurationError` with all problems at once.
    static func load(
        flags: [String: String], environment: [String: String], filePath: String?, homeDirectory: String, isRoot: Bool,
        for purpose: Purpose = .serving
    ) async throws(ConfigurationError) -> ServerConfiguration {
        let reader = try await SettingsReader(flags: flags, environment: environment, filePath: filePath)
        let configuration = ServerConfiguration(reader, homeDirectory: homeDirectory, isRoot: isRoot, for: purpose)
        try reader.finish()
        return configuration
    }

    private init(_ reader: SettingsReader, homeDirectory: String, isRoot: Bool, for purpose: Purpose) {
        self.listeners = Listeners(
            rpc: reader.read(Settings.listen), operators: reader.read(Settings.opsListen),
            drainTimeout: reader.read(Settings.drainTimeout), eventLoops: reader.read(Settings.eventLoops),
            maximumMessageBytes: reader.read(Settings.maximumMessageBytes), tls: Self.tls(reader))
        self.connections = ConnectionConfiguration(reader)
        self.limits = Limits(reader)
        self.database = Database(
            url: reader.read(Settings.databaseURL), journalConnections: reader.read(Settings.journalConnections),
            queryConnections: reader.read(Settings.queryConnections),
            isTransactionPooled: reader.read(Settings.transactionPooler),
            connectTimeout: reader.read(Settings.connectTimeout), acquireTimeout: reader.read(Settings.acquireTimeout),
            retention: reader.read(Settings.retention), retentionTime: reader.read(Settings.retentionTime),
            restoreSuspect: reader.read(Settings.restoreSuspect))
        self.engine = Engine(
            instance: reader.read(Settings.instance), installation: reader.read(Settings.installation),
            maximumSagas: reader.read(Settings.maximumSagas),
            maximumSagasPerUser: reader.read(Settings.maximumSagasPerUser))
        let sites = Self.sites(reader, installation: self.engine.installation)
        self.provisioning = Self.provisioning(
            reader, sites, isDatabaseEmbedded: self.database.url == nil, for: purpose)
        self.userService = Self.userService(reader)
        self.log = Log(
            level: reader.read(Settings.logLevel).level, format: reader.read(Settings.logFormat),
            isAccessLogged: reader.read(Settings.accessLog))
        let dataDirectory = reader.read(Settings.dataDirectory)
        self.dataDirectory =
            dataDirectory ?? (isRoot ? "/var/lib/devicerpc" : homeDirectory + "/.local/share/devicerpc")
        self.lockDirectory = self.database.url == nil ? self.dataDirectory : dataDirectory
        self.authentication = Self.authentication(reader, self.listeners.tls)
        Self.checkListening(reader, self.listeners, isAuthenticating: self.authentication != nil)
        Self.checkNames(reader, self.engine, self.database)
    }

    /// What DEVICERPC_SITES names.
    private static func sites(_ reader: SettingsReader, installation: String) -> [SiteConfiguration]? {
        guard let path = reader.read(Settings.sites) else { return nil }
        let setting = Settings.sites.description
        let single =
            [
                Settings.simulated.description, Settings.simulatedLatency.description,
                Settings.simulatedBoot.description, Settings.simulatedHosts.description,
                Settings.simulatedOptions.description, Settings.adbPortStart.description,
                Settings.adbPortEnd.description, Settings.webRTCPortStart.description,
                Settings.webRTCPortEnd.description, Settings.redroidEnabled.description,
            ] + Settings.redroid.map(\.description)
        for other in single where reader.rank(of: other) != nil {
            reader.problem(withValueOf: other, "is of no use beside \(setting.environmentName) (allowed: unset)")
        }
        guard let bytes = try? Data(contentsOf: URL(filePath: path)) else {
            reader.problem(withValueOf: setting, "\(path) can't be read (allowed: a file)")
            return []
        }
        guard bytes.count <= SitesFile.maximumBytes, let text = String(validating: bytes, as: UTF8.self) else {
            reader.problem(
                withValueOf: setting, "\(path) is no UTF-8 text, or too long (allowed: \(SitesFile.maximumBytes) bytes)"
            )
            return []
        }
        let (file, problems) = SitesFile.read(text, installation: installation)
        for problem in problems {
            reader.problem(withValueOf: setting, "\(path), \(problem)")
        }
        return file.sites
    }

    private static func provisioning(
        _ reader: SettingsReader, _ sites: [SiteConfiguration]?, isDatabaseEmbedded: Bool, for purpose: Purpose
    ) -> Provisioning {
        let isSimulatedEnabled =
            sites.map { $0.contains { $0.kind == .simulated } } ?? reader.read(Settings.simulated) ?? isDatabaseEmbedded
        var defaultProvider = reader.read(Settings.provider)
        if defaultProvider == nil, let sites {
            // The only one that the file has.
            let kinds = Set(sites.map(\.kind))
            defaultProvider = kinds.count == 1 ? kinds.first?.name : nil
        }
        switch defaultProvider {
        case let name? where sites?.isEmpty == false && ProviderKind(name: name) != nil:
            if sites?.contains(where: { $0.kind.name == name }) == false {
                reader.problem(
                    Settings.provider.description,
                    "\(name) has no site in DEVICERPC_SITES (allowed: a provider that has)")
            }
        case nil where sites != nil:
            if sites?.isEmpty == false, purpose == .serving {
                reader.problem(
                    Settings.provider.description,
                    "required where DEVICERPC_SITES has several (allowed: simulated, redroid)")
            }
        case nil:
            defaultProvider = isSimulatedEnabled ? "simulated" : nil
            if !isSimulatedEnabled, purpose == .serving {
                reader.problem(
                    Settings.provider.description,
                    "required where the simulated provider doesn't exist (allowed: redroid; or DEVICERPC_SIMULATED=true)"
                )
            }
        case "simulated" where !isSimulatedEnabled && purpose == .serving:
            reader.problem(
                Settings.provider.description,
                "simulated doesn't exist with a DATABASE_URL unless DEVICERPC_SIMULATED=true (allowed: redroid)")
        case "simulated", "redroid":
            break
        default:
            reader.problem(Settings.provider.description, "no such provider (allowed: simulated, redroid)")
        }
        var redroidEnvironment: [String: String] = [:]
        for setting in Settings.redroid {
            redroidEnvironment[setting.description.environmentName] = reader.read(setting)
        }
        let isRedroidEnabled =
            sites.map { $0.contains { $0.kind == .redroid } } ?? reader.read(Settings.redroidEnabled)
            ?? (defaultProvider == "redroid" || redroidEnvironment["REDROID_IMAGE"] != nil)
        if sites == nil, defaultProvider == "redroid", !isRedroidEnabled {
            reader.problem(Settings.redroidEnabled.description, "false with DEVICERPC_PROVIDER redroid (allowed: true)")
        }
        let adbPorts = Self.range(reader, Settings.adbPortStart, Settings.adbPortEnd)
        let webRTCPorts = Self.range(reader, Settings.webRTCPortStart, Settings.webRTCPortEnd)
        if adbPorts.count != webRTCPorts.count {
            reader.problem(
                Settings.webRTCPortEnd.description,
                "\(webRTCPorts.count) WebRTC ports for \(adbPorts.count) adb ports (allowed: ranges of equal length)")
        }
        if adbPorts.overlaps(webRTCPorts) {
            reader.problem(
                Settings.webRTCPortStart.description, "overlaps the adb ports (allowed: ranges that share no port)")
        }
        return Provisioning(
            defaultProvider: defaultProvider, sites: sites, isSimulatedEnabled: isSimulatedEnabled,
            simulatedLatency: reader.read(Settings.simulatedLatency),
            simulatedBoot: reader.read(Settings.simulatedBoot),
            simulatedHosts: reader.read(Settings.simulatedHosts),
            simulatedOptions: reader.read(Settings.simulatedOptions), portCoolDown: reader.read(Settings.portCoolDown),
            adbPorts: adbPorts, webRTCPorts: webRTCPorts,
            isRedroidEnabled: isRedroidEnabled, redroidEnvironment: redroidEnvironment)
    }

    private static func range(_ reader: SettingsReader, _ start: Setting<Int>, _ end: Setting<Int>) -> ClosedRange<Int>
    {
        let (first, last) = (reader.read(start), reader.read(end))
        guard first <= last else {
            reader.problem(
                end.description, "\(last) lies before \(start.description.environmentName) \(first) (allowed: not less)"
            )
            return start.fallback...end.fallback
        }
        return first...last
    }

    private static func userService(_ reader: SettingsReader) -> UserService? {
        let url = reader.read(Settings.userServiceURL)
        let secret = reader.read(Settings.jwtSecret)
        let isIdempotent = reader.read(Settings.userServiceIdempotent)
        let doubt = reader.read(Settings.userServiceDoubt)
        let timeout = reader.read(Settings.userServiceTimeout)
        let authorities = reader.read(Settings.userServiceCA)
        guard let url else { return nil }
        if authorities != nil, !url.hasPrefix("https://") {
            reader.problem(
                Settings.userServiceCA.description,
                "is of no use unless USER_SERVICE_URL begins with https:// (allowed: unset)")
        }
        if secret == nil,
            !reader.problems.contains(where: { $0.hasPrefix(Settings.jwtSecret.description.environmentName) })
        {
            reader.problem(
                Settings.jwtSecret.description, "missing (\(Settings.jwtSecret.description.allowed))")
        }
        return UserService(
            url: url, isIdempotent: isIdempotent, doubt: doubt, timeout: timeout, authorities: authorities,
            jwtSecret: secret ?? "")
    }

    private static func tls(_ reader: SettingsReader) -> RPCServerTLS? {
        let (certificate, key) = (reader.read(Settings.tlsCertificate), reader.read(Settings.tlsKey))
        let authority = reader.read(Settings.tlsClientCA)
        let rule = reader.read(Settings.tlsClientCertificate)
        let interval = reader.read(Settings.tlsReloadInterval)
        if certificate == nil {
            for setting in [Settings.tlsKey, Settings.tlsClientCA] where reader.read(setting) != nil {
                reader.problem(setting.description, "is of no use without DEVICERPC_TLS_CERT (allowed: unset, or both)")
            }
        } else if key == nil {
            reader.problem(Settings.tlsKey.description, "missing (\(Settings.tlsKey.description.allowed))")
        }
        if authority == nil, reader.rank(of: Settings.tlsClientCertificate.description) != nil {
            reader.problem(
                Settings.tlsClientCertificate.description,
                "is of no use without DEVICERPC_TLS_CLIENT_CA (allowed: unset, or both)")
        }
        guard let certificate, let key else { return nil }
        var tls = RPCServerTLS(certificateFile: certificate, keyFile: key, clientAuthorityFile: authority)
        tls.clientCertificate = rule == .optional ? .optional : .required
        tls.reloadInterval = interval
        return tls
    }

    private static func authentication(_ reader: SettingsReader, _ tls: RPCServerTLS?) -> AuthenticatorConfiguration? {
        let mode = reader.read(Settings.auth)
        let keySet = reader.read(Settings.keySet)
        let permissions = Self.permissions(reader)
        let secret = reader.read(Settings.jwtSecret)
        switch mode {
        case .none:
            if keySet != nil {
                reader.problem(
                    Settings.keySet.description, "is of no use with DEVICERPC_AUTH none (allowed: unset, or jwt there)")
            }
            if !permissions.isEmpty {
                reader.problem(
                    Settings.permissions.description,
                    "is of no use with DEVICERPC_AUTH none (allowed: unset, or jwt or mtls there)")
            }
            return nil
        case .jwt:
            if secret == nil, keySet == nil, tls?.clientAuthorityFile == nil {
                reader.problem(
                    Settings.auth.description, "jwt without keys (allowed with it: JWT_SECRET, DEVICERPC_JWKS or both)")
            }
            var configuration = AuthenticatorConfiguration(
                mode: .tokens, secret: secret, keySetFile: keySet, permissions: permissions)
            configuration.reloadInterval = reader.read(Settings.tlsReloadInterval)
            return configuration
        case .mtls:
            if tls?.clientAuthorityFile == nil {
                reader.problem(
                    Settings.auth.description,
                    "mtls without client certificates (allowed with it: DEVICERPC_TLS_CLIENT_CA)")
            }
            if keySet != nil {
                reader.problem(
                    Settings.keySet.description, "is of no use with DEVICERPC_AUTH mtls (allowed: unset, or jwt there)")
            }
            if permissions.certificates.isEmpty, reader.problems.isEmpty {
                reader.problem(
                    Settings.permissions.description,
                    "nobody may do anything with DEVICERPC_AUTH mtls (allowed there: san:NAME=PERMISSION,… entries)")
            }
            return AuthenticatorConfiguration(mode: .certificates, permissions: permissions)
        }
    }

    private static func permissions(_ reader: SettingsReader) -> PermissionMap {
        var text = reader.read(Settings.permissions)
        if text.hasPrefix("@") {
            let path = String(text.dropFirst())
            guard let bytes = try? Data(contentsOf: URL(filePath: path)) else {
                reader.problem(Settings.permissions.description, "\(path) can't be read (allowed: a file, or entries)")
                return PermissionMap()
            }
            guard let content = String(validating: bytes, as: UTF8.self) else {
                reader.problem(
                    Settings.permissions.description, "\(path) is no UTF-8 text (allowed: a file of entries)")
                return PermissionMap()
            }
            text = content
        }
        do throws(PermissionMap.Problem) {
            return try PermissionMap(text)
        } catch {
            reader.problem(Settings.permissions.description, "\(error)")
            return PermissionMap()
        }
    }

    private static func checkListening(_ reader: SettingsReader, _ listeners: Listeners, isAuthenticating: Bool) {
        let asksForCertificates = listeners.tls.map {
            $0.clientAuthorityFile != nil && $0.clientCertificate == .required
        }
        let isClosed = listeners.tls != nil && (isAuthenticating || asksForCertificates == true)
        if !reader.read(Settings.insecureListen), !listeners.rpc.isLoopback, !isClosed {
            reader.problem(
                Settings.listen.description,
                "\(listeners.rpc) is reachable from other machines, without TLS or without authentication "
                    + "(allowed: a loopback address, or --insecure-listen for a network that is trusted)")
        }
    }

    private static func checkNames(_ reader: SettingsReader, _ engine: Engine, _ database: Database) {
        let isInstallationValid =
            (1...40).contains(engine.installation.utf8.count)
            && engine.installation.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 }
        if !isInstallationValid {
            reader.problem(
                Settings.installation.description,
                "is not usable (allowed: \(Settings.installation.description.allowed))")
        }
        if let url = database.url, let problem = PostgresConfiguration.problem(inConninfo: url) {
            reader.problem(
                Settings.databaseURL.description, "\(problem) (allowed: \(Settings.databaseURL.description.allowed))")
        }
        if let instance = engine.instance, instance.unicodeScalars.count > 100 {
            reader.problem(
                Settings.instance.description, "is too long (allowed: \(Settings.instance.description.allowed))")
        }
    }
}
