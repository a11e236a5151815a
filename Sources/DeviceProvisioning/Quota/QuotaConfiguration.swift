import FoundationEssentials

/// How to reach the user service, which keeps the quotas.
public struct QuotaConfiguration: Sendable {
    /// `USER_SERVICE_URL` without a slash at its end.
    public let baseURL: String
    /// `JWT_SECRET`: signs the service token.
    public let jwtSecret: String
    /// What becomes of a saga where nobody can tell whether a report was counted: one without an answer, to a service
    /// that doesn't honour keys.
    public enum Doubt: String, Sendable, CaseIterable {
        /// It parks, and a person finds out.
        case park
        /// It goes on as if the report had been counted (undo: as if it had been taken back), and says so for a
        /// reconciliation: its event, a counter and a line in the log.
        case accept
    }

    /// Whether the service honours `Idempotency-Key`: it applies a key once, and answers a repetition as it answered
    /// before, for at least a day. Default: false, as today's does not.
    public var isIdempotent: Bool
    /// Default: park.
    public var doubt: Doubt
    /// For one request of the forward direction, connecting included. Default: 5 s.
    public var timeout: Duration
    /// For one of the undo. Nobody waits for it, and a service that is merely slow would never get it done otherwise.
    var undoTimeout: Duration { self.timeout * 3 }
    /// Who we say we are: the token's claim `service`.
    public var serviceName: String
    /// At a time; further requests wait.
    public var maximumConnections: Int
    public static let usualMaximumConnections = 64
    /// `USER_SERVICE_CA`: whose word about the service's certificate is believed. Default: the system's authorities.
    public var trusted: TrustedCertificates?

    /// The shortest secret that the token's other side accepts too.
    static let minimumSecretBytes = 32

    /// - Parameter authorities: `USER_SERVICE_CA`, a PEM file.
    /// - Throws: `ProviderConfigurationError` naming the key that is wrong.
    public init(
        baseURL: String, jwtSecret: String, isIdempotent: Bool = false, doubt: Doubt = .park,
        timeout: Duration = .seconds(5), serviceName: String = "device-service",
        maximumConnections: Int = Self.usualMaximumConnections, authorities: String? = nil
    ) throws(ProviderConfigurationError) {
        var trimmed = Substring(baseURL)
        while trimmed.hasSuffix("/") { trimmed.removeLast() }
        guard let url = URL(string: String(trimmed)), let scheme = url.scheme, scheme == "http" || scheme == "https",
            let host = url.host, !host.isEmpty, url.query == nil, url.fragment == nil, url.user == nil
        else {
            throw ProviderConfigurationError(
                key: "USER_SERVICE_URL",
                problem: "must be http://host[:port][/path] or https://…, without user and query")
        }
        guard jwtSecret.utf8.count >= Self.minimumSecretBytes else {
            throw ProviderConfigurationError(
                key: "JWT_SECRET",
                problem: "must have at least \(Self.minimumSecretBytes) bytes where USER_SERVICE_URL is set")
        }
        if let authorities {
            guard scheme == "https" else {
                throw ProviderConfigurationError(
                    key: "USER_SERVICE_CA", problem: "is of no use unless USER_SERVICE_URL begins with https://")
            }
            self.trusted = try TrustedCertificates(pemFile: authorities, key: "USER_SERVICE_CA")
        }
        self.baseURL = String(trimmed)
        self.jwtSecret = jwtSecret
        self.isIdempotent = isIdempotent
        self.doubt = doubt
        self.timeout = timeout
        self.serviceName = serviceName
        self.maximumConnections = maximumConnections
    }
}
