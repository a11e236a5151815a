public import SagaRuntime

/// A system that makes devices.
///
/// Rules for every implementation:
/// - Each call may be repeated any number of times, from any process, and ends in the same state.
/// - `request.authorize` is called right before every single request; what it throws once something may have been made
///   becomes `unknownOutcome`.
/// - `create`, `stop` and `destroy` throw `unknownOutcome` unless it is certain that nothing happened: everything made
///   half-way was removed again, or the request never left this process. A cancelled task counts as a lost reply.
/// - `start` changes nothing but whether an existing device runs; the undo of `create` takes that along. Its errors say
///   what is worth repeating, not what happened.
/// - What a provider answers is untrusted: bounded, sanitised, never trapped on.
/// - Reasons are the contract's: PROVIDER_UNAVAILABLE, PROVIDER_REFUSED, BOOT_FAILED, and PORT_TAKEN for
///   `conflict(redoing: "ALLOCATE_PORTS")`.
public protocol DeviceProvider: Sendable {
    var kind: ProviderKind { get }
    /// Whether the provider itself makes at most one device per saga and generation, so that `create` in doubt may be
    /// repeated at once.
    var createIsUniqueByKey: Bool { get }
    /// The same under these `provider_options`, for a provider that can be told otherwise.
    func createIsUniqueByKey(options: [String: String]) -> Bool
    /// How long after this side gave up on a call its effect may still appear, or stay invisible to `find`: what is left of
    /// the call on the provider's side (its limit), and the provider's own lag.
    func lag(options: [String: String]) -> Duration
    var callLimits: ProviderCallLimits { get }
    /// The hosts whose ports its devices need; empty: ALLOCATE_PORTS has nothing to do.
    var hosts: [PortHost] { get }
    /// How its ports are granted; usually the pairs of `hosts`.
    var portPool: PortPool? { get }

    /// False: what answers at its address is not what the site's name stands for, and nothing may be believed of it.
    var canServe: Bool { get }
    /// Whether what one of its sites made is seen by all of them.
    var sitesShareDevices: Bool { get }
    /// Looks who answers at its address, if that says anything. Called every few seconds.
    func look() async

    /// What the provider will not do: an Android version that it lacks, an option that it doesn't know. Pure.
    func violations(spec: DeviceSpec, options: [String: String]) -> [ProviderViolation]

    /// Makes the device, or adopts the one that an earlier attempt of this generation made. Its ports are bound
    /// afterwards; if a stranger has one of them, throws `conflict(redoing: "ALLOCATE_PORTS")`, reason PORT_TAKEN.
    func create(_ request: ProviderRequest) async throws(StepError) -> ProviderDevice
    /// Starts the device and waits until it has booted. Failing to boot is `refused`, reason BOOT_FAILED.
    func start(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) -> DeviceConnection
    /// Stops the device; it can be started again. Already stopped is fine; gone is `notFound`.
    func stop(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError)
    /// Removes the device and all its parts, running or not. Returns once they are gone.
    func destroy(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) -> Undone
    /// Removes this one device, found or made by a call that may be late: what another process has made under the same
    /// key meanwhile stays. Gone already is fine.
    func discard(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError)
    /// Everything that the saga ever made here, by label, over all generations, in rising order of generation. Of
    /// `request` only `sagaID`, `options` and `authorize` are looked at.
    func find(_ request: ProviderRequest) async throws(StepError) -> [ProviderDevice]
    /// Everything that carries our installation's label. Asks, changes nothing.
    func listOwned() async throws(StepError) -> [OwnedDevice]

    /// Closes connections. Nothing may be called afterwards.
    func shutdown() async
}

extension DeviceProvider {
    public var canServe: Bool { true }
    public var sitesShareDevices: Bool { false }
    public func look() async {}

    public func createIsUniqueByKey(options: [String: String]) -> Bool { self.createIsUniqueByKey }

    /// The pairs of `hosts`; `nil` where there are none, because devices need no ports.
    public var portPool: PortPool? {
        self.hosts.isEmpty ? nil : PortPool(name: self.kind.name, supply: .hosts(self.hosts))
    }

    /// For a provider that never gives one key to two devices.
    public func discard(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) {
        _ = try await self.destroy(device, request)
    }

    public func shutdown() async {}
}
