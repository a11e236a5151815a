/// What is wrong with a request, in a provider's eyes; becomes one `google.rpc.BadRequest.FieldViolation`.
public struct ProviderViolation: Sendable, Equatable {
    /// The contract's path, e.g. `spec.android_version`, `provider_options.fps`.
    public var field: String
    /// Says what is allowed; never repeats an option's value.
    public var description: String

    public init(field: String, description: String) {
        self.field = field
        self.description = description
    }
}
