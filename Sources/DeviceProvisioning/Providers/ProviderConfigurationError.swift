/// A configuration value that a provider can't work with; it stops the server's start.
public struct ProviderConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The configuration key, e.g. `REDROID_IMAGE`.
    public var key: String
    /// What is wrong and what is allowed. Never repeats a secret.
    public var problem: String

    public init(key: String, problem: String) {
        self.key = key
        self.problem = problem
    }

    public var description: String { "\(self.key): \(self.problem)" }
}
