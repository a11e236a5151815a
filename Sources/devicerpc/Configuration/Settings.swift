import DeviceProvisioning
import Logging
import SagaRuntime

/// Every configuration key of the server: the one table that the sources, `serve --help`, `docs/configuration.md` and
/// the errors are made from.
enum Settings {
    // MARK: Server

    static let listen = Setting<ListenAddress>.address(
        "listen", "DEVICERPC_LISTEN", .server, default: ListenAddress(host: "127.0.0.1", port: 50051),
        "Where the gRPC server listens.")
    static let opsListen = Setting<ListenAddress>.address(
        "ops.listen", "DEVICERPC_OPS_LISTEN", .server, default: ListenAddress(host: "127.0.0.1", port: 9464),
        "Where /metrics, /healthz and /readyz are served, over HTTP/1.1 without authentication.")
    static let dataDirectory = Setting<String?>.optionalText(
        "data-dir", "DEVICERPC_DATA_DIR", .server,
        defaultText: "~/.local/share/devicerpc, for root /var/lib/devicerpc", allowed: "a path",
        "The directory of the embedded PostgreSQL, and of the lock that proves a predecessor's death, so that its sagas "
            + "are taken up at once. Made if missing. With DATABASE_URL there is only the lock, and only if this is set; "
            + "each replica on a machine needs its own.")
    static let instance = Setting<String?>.optionalText(
        "instance", "DEVICERPC_INSTANCE", .server, defaultText: "host name, process id and a random part",
        allowed: "1 to 100 characters, one living process per name",
        "This replica's name. A fixed one lets a restarted server take up its own sagas at once.")
    static let installation = Setting<String>.text(
        "installation", "DEVICERPC_INSTALLATION", .server, default: "default",
        allowed: "1 to 40 characters of a-z, 0-9 and -",
        "Labels what this installation makes at providers; all replicas on one database share it, and no two "
            + "installations on one provider account may.")
    static let drainTimeout = Setting<Duration>.duration(
        "drain-timeout", "DEVICERPC_DRAIN_TIMEOUT", .server, default: .seconds(30), in: .zero ... .seconds(3600),
        "How long a stopping server waits for calls, and for what sagas have under way, before it leaves the rest to the "
            + "other replicas. 10 s later it ends in any case.")
    static let eventLoops = Setting<Int>.integer(
        "event-loops", "DEVICERPC_EVENT_LOOPS", .server, default: 0, in: 0...256,
        "Threads that serve connections; 0: one per core.")
    static let maximumMessageBytes = Setting<Int>.integer(
        "max-message-bytes", "DEVICERPC_MAX_MESSAGE_BYTES", .server, default: 4_194_304, in: 1024...67_108_864,
        "The largest request message that is taken; a larger one is RESOURCE_EXHAUSTED before it is buffered.")
    static let maximumSagas = Setting<Int>.integer(
        "max-sagas", "DEVICERPC_MAX_SAGAS", .server, default: 8192, in: 1...1_000_000,
        "Sagas in flight on this replica; beyond it CreateDevice answers OVERLOADED.")
    static let maximumSagasPerUser = Setting<Int>.integer(
        "max-sagas-per-user", "DEVICERPC_MAX_SAGAS_PER_USER", .server, default: 4096, in: 1...1_000_000,
        "The same for the sagas of one user, so that nobody uses up what there is for all.")

    // MARK: Security

    static let insecureListen = Setting<Bool>.boolean(
        "insecure-listen", "DEVICERPC_INSECURE_LISTEN", .security, default: false,
        "Allows listen beyond this machine without TLS and without authentication of callers.")
    static let auth = Setting<AuthenticationMode>.choice(
        "auth", "DEVICERPC_AUTH", .security, default: .none,
        "How callers are known. none: nobody is asked, and everybody may do everything. jwt: by a token, or by a "
            + "certificate where DEVICERPC_TLS_CLIENT_CA is set. mtls: by a certificate alone. docs/security.md tells the rest."
    )
    static let keySet = Setting<String?>.optionalText(
        "auth.jwks", "DEVICERPC_JWKS", .security, defaultText: "no tokens but HS256, checked with JWT_SECRET",
        allowed: "a path",
        "JWKS file with the public keys of RS256, ES256 and EdDSA tokens. Read again when it changes.")
    static let permissions = Setting<String>.text(
        "auth.permissions", "DEVICERPC_PERMISSIONS", .security, default: "",
        allowed:
            "role:NAME=PERMISSION,…, service:NAME=… and san:NAME=… entries joined by ; or line ends, or @ and the path "
            + "of a file with them",
        "What roles of users, services and certificates may do, beside the permissions that tokens claim. Permissions: "
            + "device.create, device.read, device.delete, device.control, saga.read, saga.admin and, for roles, tenant.admin."
    )
    static let tlsCertificate = Setting<String?>.optionalText(
        "tls.cert", "DEVICERPC_TLS_CERT", .security, defaultText: "cleartext", allowed: "a path",
        "PEM file of the server's certificate and those that link it to a root: the gRPC port speaks TLS 1.2 and 1.3. "
            + "Read again when it changes.")
    static let tlsKey = Setting<String?>.optionalText(
        "tls.key", "DEVICERPC_TLS_KEY", .security, allowed: "a path; required with DEVICERPC_TLS_CERT",
        "PEM file of the certificate's private key, without a passphrase. Read again when it changes.")
    static let tlsClientCA = Setting<String?>.optionalText(
        "tls.client-ca", "DEVICERPC_TLS_CLIENT_CA", .security, defaultText: "no client certificates",
        allowed: "a path; needs DEVICERPC_TLS_CERT",
        "PEM file of the authorities whose client certificates are asked for and accepted (mutual TLS). Read again when "
            + "it changes.")
    static let tlsClientCertificate = Setting<ClientCertificateRule>.choice(
        "tls.client-cert", "DEVICERPC_TLS_CLIENT_CERT", .security, default: .required,
        "Whether clients must show a certificate where tls.client-ca is set; optional lets those in that have none.")
    static let tlsReloadInterval = Setting<Duration>.duration(
        "tls.reload-interval", "DEVICERPC_TLS_RELOAD_INTERVAL", .security, default: .seconds(5),
        in: .milliseconds(50) ... .seconds(3600), "How often the files of TLS and of tokens' keys are looked at.")

    // MARK: Database and engine

    static let databaseURL = Setting<String?>.optionalText(
        "database.url", "DATABASE_URL", .database, defaultText: "an embedded PostgreSQL in the data directory",
        allowed: "a libpq URI (postgresql://…) or conninfo", isSecret: true,
        "The database. Unset: a PostgreSQL of the server's own, started and stopped with it.")
    static let journalConnections = Setting<Int>.integer(
        "database.journal-connections", "DEVICERPC_JOURNAL_CONNECTIONS", .database, default: 2, in: 1...8,
        "Connections that write the journal, each one flush at a time.")
    static let queryConnections = Setting<Int>.integer(
        "database.query-connections", "DEVICERPC_QUERY_CONNECTIONS", .database, default: 4, in: 1...64,
        "Connections for reads.")

    static let connectTimeout = Setting<Duration>.duration(
        "database.connect-timeout", "DEVICERPC_DATABASE_CONNECT_TIMEOUT", .database, default: .seconds(5),
        in: .milliseconds(100) ... .seconds(60),
        "How long each server that DATABASE_URL names may take to let a connection in; connect_timeout there goes before "
            + "it. A server that has said nothing for a second has the next one tried beside it.")
    static let acquireTimeout = Setting<Duration>.duration(
        "database.acquire-timeout", "DEVICERPC_DATABASE_ACQUIRE_TIMEOUT", .database, default: .seconds(1),
        in: .milliseconds(50) ... .seconds(60),
        "How long a request waits for a connection to come free or to be made. One that takes longer to be made is there for "
            + "the next request.")

    static let transactionPooler = Setting<Bool>.boolean(
        "database.transaction-pooler", "DEVICERPC_TRANSACTION_POOLER", .database, default: false,
        "Whether DATABASE_URL leads to a pooler in transaction mode (PgBouncer's pool_mode = transaction). Statements are "
            + "not prepared then, and replicas poll twice a second instead of waking each other by NOTIFY.")

    static let retention = Setting<Duration>.duration(
        "database.retention", "DEVICERPC_RETENTION", .database, default: .seconds(30 * 86_400),
        in: .zero ... .seconds(3650 * 86_400),
        "How long a day of sagas is kept once all of them are over (docs/database.md); 0 keeps them for good, and less than 3d "
            + "counts as 3d. Devices stay.")
    static let retentionTime = Setting<DailyTime>.dailyTime(
        "database.retention-at", "DEVICERPC_RETENTION_AT", .database, default: DailyTime(hour: 2, minute: 0),
        defaultText: "02:00", "When days that are older go, every day, by the server's time zone.")

    static let restoreSuspect = Setting<Duration>.duration(
        "database.restore-suspect", "DEVICERPC_RESTORE_SUSPECT", .database, default: .seconds(3600),
        in: .zero ... .seconds(365 * 86_400),
        "A server that starts where no server has renewed its lease for so long takes up no unfinished sagas until `devicerpc "
            + "adopt --after-restore`: the database may be an old copy (docs/database.md). 0: however long. The embedded "
            + "database is never held.")

    // MARK: Provisioning

    static let provider = Setting<String?>.optionalText(
        "provider", "DEVICERPC_PROVIDER", .provisioning,
        defaultText: "simulated where that exists; else required", allowed: "simulated, redroid",
        "The provider of requests that name none.")
    static let sites = Setting<String?>.optionalText(
        "sites", "DEVICERPC_SITES", .provisioning,
        defaultText: "the settings of a single engine, below, and of the simulated provider", allowed: "a path",
        "YAML or JSON file of the sites where devices are made (docs/sites.md): several Docker engines, say. Beside it the "
            + "settings of a single engine, of the simulated provider and of port ranges must be unset.")
    static let simulated = Setting<Bool?>.optionalBoolean(
        "simulated.enabled", "DEVICERPC_SIMULATED", .provisioning,
        defaultText: "true with the embedded PostgreSQL, else false",
        "Whether the simulated provider exists.")
    static let simulatedLatency = Setting<Duration>.duration(
        "simulated.latency", "DEVICERPC_SIMULATED_LATENCY", .provisioning, default: .milliseconds(300),
        in: .zero ... .seconds(600), "How long each call to the simulated provider takes, unless a request says.")
    static let simulatedBoot = Setting<Duration>.duration(
        "simulated.boot", "DEVICERPC_SIMULATED_BOOT", .provisioning, default: .milliseconds(700),
        in: .zero ... .seconds(3600), "How long a simulated device boots, unless a request says.")
    static let simulatedHosts = Setting<Int>.integer(
        "simulated.hosts", "DEVICERPC_SIMULATED_HOSTS", .provisioning, default: 0, in: 0...10_000,
        "Caps the simulated provider's hosts, so that ports can run out; 0: as many as are needed.")
    static let simulatedOptions = Setting<String?>.optionalText(
        "simulated.options", "DEVICERPC_SIMULATED_OPTIONS", .provisioning,
        allowed: "name=value pairs of docs/simulated-provider.md, joined by ;",
        "What every simulated device does, unless a request says, e.g. fail=create:unavailable;fail_times=2.")
    static let portCoolDown = Setting<Duration>.duration(
        "ports.cool-down", "DEVICERPC_PORT_COOL_DOWN", .provisioning, default: .seconds(30),
        in: .zero ... .seconds(86400),
        "How long a released pair of ports rests before it is given to another device.")
    static let adbPortStart = Setting<Int>.integer(
        "ports.adb.start", "ADB_PORT_START", .provisioning, default: 5555, in: 1...65535,
        "First port for adb on each host.")
    static let adbPortEnd = Setting<Int>.integer(
        "ports.adb.end", "ADB_PORT_END", .provisioning, default: 6554, in: 1...65535,
        "Last port for adb on each host.")
    static let webRTCPortStart = Setting<Int>.integer(
        "ports.webrtc.start", "WEBRTC_PORT_START", .provisioning, default: 8080, in: 1...65535,
        "First port for WebRTC on each host; the range is as long as adb's.")
    static let webRTCPortEnd = Setting<Int>.integer(
        "ports.webrtc.end", "WEBRTC_PORT_END", .provisioning, default: 9079, in: 1...65535,
        "Last port for WebRTC on each host.")

    // MARK: User service

    static let userServiceURL = Setting<String?>.optionalText(
        "user-service.url", "USER_SERVICE_URL", .userService,
        defaultText: "none; the step REPORT_QUOTA_USAGE is skipped",
        allowed: "http://… or https://…", schemes: ["http://", "https://"],
        "The user service, which counts devices against quotas.")
    static let userServiceIdempotent = Setting<Bool>.boolean(
        "user-service.idempotent", "USER_SERVICE_IDEMPOTENT", .userService, default: false,
        "Whether the user service honours Idempotency-Key: a key is applied once, and answered again as it was, for at "
            + "least a day. If not, a report is sent once, and where its outcome is unknown USER_SERVICE_DOUBT decides."
    )
    static let userServiceDoubt = Setting<QuotaConfiguration.Doubt>.choice(
        "user-service.doubt", "USER_SERVICE_DOUBT", .userService, default: .park,
        "What becomes of a saga whose report has an unknown outcome, where keys are not honoured. park: it stands still "
            + "until a person has found out, and a restart of the user service parks all that are in that step. accept: it "
            + "goes on as if the report had been counted (undo: taken back), and the usage is wrong by one device where it "
            + "had not; docs/user-service.md tells how to find those.")
    static let userServiceCA = Setting<String?>.optionalText(
        "user-service.ca", "USER_SERVICE_CA", .userService, defaultText: "the system's authorities", allowed: "a path",
        "PEM file of the authorities that the user service's certificate must come from, instead of the system's.")
    static let userServiceTimeout = Setting<Duration>.duration(
        "user-service.timeout", "DEVICERPC_USER_SERVICE_TIMEOUT", .userService, default: .seconds(5),
        in: .milliseconds(10) ... .seconds(60), "The longest that one request to the user service takes.")
    static let jwtSecret = Setting<String?>.optionalText(
        "jwt-secret", "JWT_SECRET", .userService, allowed: "at least 32 bytes; required with USER_SERVICE_URL",
        isSecret: true, hasFlag: false, minimumLength: 32,
        "Signs the token (HS256) that the user service is called with, and checks the HS256 tokens of callers.")

    // MARK: Logging

    static let logLevel = Setting<LogLevel>.choice(
        "log.level", "DEVICERPC_LOG_LEVEL", .logging, default: .info, "The least severe level that is written.")
    static let logFormat = Setting<LogFormat>.choice(
        "log.format", "DEVICERPC_LOG_FORMAT", .logging, default: .text,
        "Lines for people or one JSON object per line; on standard error.")

    static let accessLog = Setting<Bool>.boolean(
        "log.access", "DEVICERPC_ACCESS_LOG", .logging, default: false,
        "A line for each call that ended: method, outcome, duration, peer, and the x-request-id that its client gave it."
    )

    // MARK: Redroid

    static let redroidEnabled = Setting<Bool?>.optionalBoolean(
        "redroid.enabled", "DEVICERPC_REDROID", .redroid,
        defaultText: "true if DEVICERPC_PROVIDER is redroid or REDROID_IMAGE is set",
        "Whether the redroid provider exists.")

    /// Settings that the redroid provider reads itself, by their environment names.
    static let redroid: [Setting<String?>] = [
        .optionalText(
            "redroid.image", "REDROID_IMAGE", .redroid,
            defaultText: "redroid/redroid:<version>.0.0-latest for 11, 12 and 13",
            allowed: "version=image pairs joined by commas, or one image whose tag begins with its Android version",
            "The container image by Android version. Callers never choose an image, since it runs privileged."),
        .optionalText(
            "redroid.docker-host", "DOCKER_HOST", .redroid, defaultText: "unix:///var/run/docker.sock",
            allowed: "unix:///path or tcp://host:port", "The Docker engine."),
        .optionalText(
            "redroid.gpu-mode", "REDROID_GPU_MODE", .redroid, defaultText: "auto", allowed: "auto, host, guest",
            "How devices render, where a request doesn't say."),
        .optionalText(
            "redroid.fps", "DEVICERPC_REDROID_FPS", .redroid, defaultText: "30", allowed: "1 to 240",
            "Frames per second, where a request doesn't say."),
        .optionalText(
            "redroid.boot-args", "DEVICERPC_REDROID_BOOT_ARGS", .redroid, allowed: "name=value pairs joined by spaces",
            "Further boot arguments for every device, e.g. androidboot.use_memfd=1."),
        .optionalText(
            "redroid.boot-timeout", "DEVICERPC_REDROID_BOOT_TIMEOUT", .redroid, defaultText: "60",
            allowed: "seconds, 1 to 3600", "How long a device may take to boot."),
        .optionalText(
            "redroid.storage-quota", "DEVICERPC_REDROID_STORAGE_QUOTA", .redroid, defaultText: "false",
            allowed: "true, false",
            "Limits /data to the device's storage; needs project quotas under the engine's volumes."),
        .optionalText(
            "redroid.bind-address", "DEVICERPC_REDROID_BIND_ADDRESS", .redroid, defaultText: "127.0.0.1",
            allowed: "an address of the engine's host",
            "Where devices' ports are bound. adb on it is a root shell without authentication."),
        .optionalText(
            "redroid.advertised-host", "DEVICERPC_REDROID_ADVERTISED_HOST", .redroid,
            defaultText: "the bind address, or the engine's host", allowed: "a host",
            "The host that callers are told to connect to."),
        .optionalText(
            "redroid.port-host", "DEVICERPC_REDROID_PORT_HOST", .redroid,
            defaultText: "the engine's host, or localhost", allowed: "a name",
            "The name of the engine's host in the port pool."),
        .optionalText(
            "redroid.adb-host", "ADB_HOST", .redroid, defaultText: "127.0.0.1", allowed: "a host",
            "The adb server that checks whether a device has booted."),
        .optionalText(
            "redroid.adb-port", "ADB_PORT", .redroid, defaultText: "5037", allowed: "1 to 65535",
            "The adb server's port."),
        .optionalText(
            "redroid.adb-autostart", "DEVICERPC_ADB_AUTOSTART", .redroid,
            defaultText: "true where ADB_HOST is this machine", allowed: "true, false",
            "Starts an adb server where none listens."),
        .optionalText(
            "redroid.adb-target", "DEVICERPC_REDROID_ADB_TARGET", .redroid,
            defaultText: "the bind address, or the engine's host", allowed: "a host",
            "The host under which the adb server reaches devices' ports."),
    ]

    /// Descriptions of all settings, in the order of the reference.
    static let all: [SettingDescription] =
        [
            listen.description, opsListen.description, dataDirectory.description, instance.description,
            installation.description, drainTimeout.description, eventLoops.description, maximumMessageBytes.description,
            maximumSagas.description, maximumSagasPerUser.description,
        ] + connections + Limits.all + [
            insecureListen.description, auth.description, keySet.description, permissions.description,
            tlsCertificate.description, tlsKey.description,
            tlsClientCA.description, tlsClientCertificate.description, tlsReloadInterval.description,
            databaseURL.description, journalConnections.description, queryConnections.description,
            connectTimeout.description, acquireTimeout.description, transactionPooler.description,
            retention.description,
            retentionTime.description, restoreSuspect.description,
            provider.description, sites.description, simulated.description, simulatedLatency.description,
            simulatedBoot.description,
            simulatedHosts.description, simulatedOptions.description, portCoolDown.description,
            adbPortStart.description, adbPortEnd.description, webRTCPortStart.description, webRTCPortEnd.description,
            redroidEnabled.description,
        ] + redroid.map(\.description) + [
            userServiceURL.description, userServiceIdempotent.description, userServiceDoubt.description,
            userServiceTimeout.description, userServiceCA.description, jwtSecret.description,
            logLevel.description, logFormat.description, accessLog.description,
        ]

    /// Environment names of ours that are no settings: files of settings, and what test builds read.
    static let otherEnvironmentNames: Set<String> = [
        "DEVICERPC_CONFIG", ClientSettings.fileVariable, "DEVICERPC_FAULT", "DEVICERPC_FAULT_LOG",
        "DEVICERPC_FAULT_SIGNAL",
    ]
}

/// How callers prove who they are.
enum AuthenticationMode: String, CaseIterable, Sendable { case none, jwt, mtls }

/// Whether clients must show a certificate, where they are asked for one.
enum ClientCertificateRule: String, CaseIterable, Sendable { case required, optional }

/// swift-log's levels by their names.
enum LogLevel: String, CaseIterable, Sendable {
    case trace, debug, info, notice, warning, error, critical

    var level: Logger.Level { Logger.Level(rawValue: self.rawValue) ?? .info }
}
