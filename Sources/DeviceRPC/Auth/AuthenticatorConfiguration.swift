/// How callers are known, and what they may do.
public struct AuthenticatorConfiguration: Sendable {
    /// What a caller can show.
    public enum Mode: Sendable, Equatable {
        /// A token, or a certificate where the server asks for one.
        case tokens
        /// A certificate alone.
        case certificates
    }

    public var mode: Mode
    /// Checks HS256 tokens; never print it.
    public var secret: String?
    /// A JWKS with the keys of RS256, ES256 and EdDSA tokens.
    public var keySetFile: String?
    /// How often the file is looked at.
    public var reloadInterval: Duration = .seconds(5)
    public var permissions: PermissionMap

    public init(mode: Mode, secret: String? = nil, keySetFile: String? = nil, permissions: PermissionMap) {
        self.mode = mode
        self.secret = secret
        self.keySetFile = keySetFile
        self.permissions = permissions
    }

    /// Reads the key set, so that what is wrong with it is known before anything is begun.
    ///
    /// - Throws: `Authenticator.KeySetError`.
    public func check() async throws { _ = try await Authenticator.loadKeys(self) }
}
