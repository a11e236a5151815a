import FoundationEssentials

/// How to reach the user service, which keeps the quotas.
public struct QuotaConfiguration: Sendable {
    /// `USER_SERVICE_URL` without a slash at its end.
    public let baseURL: String
    /// `JWT_SECRET`: signs the service token.
    public let jwtSecret: String
    /// Whether the service honours `Idempotency-Key`. Default: false, as today's does not.
    public var isIdempotent: Bool
    /// For one request, connecting included. Default: 5 s.
    public var timeout: Duration
    /// Who we say we are: the token's claim `service`.
    public var serviceName: String
    /// At a time; further requests wait.
    public var maximumConnections: Int
    public static let usualMaximumConnections = 64

    /// The shortest secret that the token's other side accepts too.
    static let minimumSecretBytes = 32

    /// - Throws: `ProviderConfigurationError` naming the key that is wrong.
    public init(
        baseURL: String, jwtSecret: String, isIdempotent: Bool = false, timeout: Duration = .seconds(5),
        serviceName: String = "device-service", maximumConnections: Int = Self.usualMaximumConnections
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
        self.baseURL = String(trimmed)
        self.jwtSecret = jwtSecret
        self.isIdempotent = isIdempotent
        self.timeout = timeout
        self.serviceName = serviceName
        self.maximumConnections = maximumConnections
    }
}
