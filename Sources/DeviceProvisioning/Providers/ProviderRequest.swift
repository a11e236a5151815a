public import SagaRuntime

/// What a provider is told with every call: whose device it is, how it shall be, and whether it may still act.
public struct ProviderRequest: Sendable {
    public var sagaID: SagaID
    /// Of the step that makes the device; part of the resource's name at the provider.
    public var generation: Int
    /// `saga : step : generation`; providers bring it into their own character set and length.
    public var idempotencyKey: String
    /// UUID text.
    public var deviceID: String
    public var userID: String
    /// The device's display name: free text, never part of an identifier.
    public var name: String
    public var spec: DeviceSpec
    /// The caller's `provider_options`. Secret: never in messages, logs or outputs.
    public var options: [String: String]
    /// What ALLOCATE_PORTS granted; `nil` where the provider has no `hosts`.
    public var ports: PortPair?
    /// From 1; of this step and direction.
    public var attempt: Int
    /// Throws `leaseLost` if this process may no longer start effects. Called right before **every** request.
    public var authorize: @Sendable () throws(StepError) -> Void

    public init(
        sagaID: SagaID, generation: Int, idempotencyKey: String, deviceID: String, userID: String, name: String,
        spec: DeviceSpec, options: [String: String], ports: PortPair?, attempt: Int,
        authorize: @escaping @Sendable () throws(StepError) -> Void
    ) {
        self.sagaID = sagaID
        self.generation = generation
        self.idempotencyKey = idempotencyKey
        self.deviceID = deviceID
        self.userID = userID
        self.name = name
        self.spec = spec
        self.options = options
        self.ports = ports
        self.attempt = attempt
        self.authorize = authorize
    }
}
