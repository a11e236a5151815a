#if FAULT_POINTS
    import Glibc
#endif
public import SagaRuntime
import Synchronization

/// A provider that is real in every way but the phone, for trying things out and for fault drills.
///
/// Its devices are rows of a table of its own, so that they outlive the server, and leaks and repeats can be counted.
/// Latencies and failures come from configuration and, per request, from `provider_options`.
public final class SimulatedProvider: DeviceProvider {
    private let configuration: SimulatedConfiguration
    private let store: SimulatedStore
    private let outages: SimulatedOutages
    /// How often calls have failed by `fail_times` here, where an attempt may be made many times: questions, and probes of a site
    /// that is taken to be down, use up none.
    private let failures = Mutex<[String: Int]>([:])

    /// - Parameter database: where `simulated_device` lives; apart from the journal's connections.
    public init(configuration: SimulatedConfiguration, database: PostgresPool) {
        self.configuration = configuration
        self.store = SimulatedStore(database: database)
        self.outages = SimulatedOutages(database: database)
    }

    public var kind: ProviderKind { .simulated }

    public var createIsUniqueByKey: Bool { self.configuration.behaviour.isUniqueByKey }

    public func createIsUniqueByKey(options: [String: String]) -> Bool { self.behaviour(options).isUniqueByKey }

    /// What a call takes, what is told to happen late, and what a call that was sent may take when nobody waits for it.
    public func lag(options: [String: String]) -> Duration {
        let behaviour = self.behaviour(options)
        return behaviour.latency + behaviour.late + behaviour.lookupLag + SimulatedStore.limit
    }

    public var callLimits: ProviderCallLimits {
        let behaviour = self.configuration.behaviour
        let limit = behaviour.latency * 2 + .seconds(15)
        return ProviderCallLimits(
            create: limit, start: limit + behaviour.boot * 2 + .seconds(15), stop: limit, destroy: limit, find: limit)
    }

    public var hosts: [PortHost] { self.configuration.hosts }

    public var portPool: PortPool? {
        self.hosts.isEmpty
            ? PortPool(name: self.configuration.pool, supply: .endless(prefix: "sim"))
            : PortPool(name: "\(self.configuration.pool)-capped", supply: .hosts(self.hosts))
    }

    /// One table has the devices of all sites.
    public var sitesShareDevices: Bool { true }

    public func violations(spec: DeviceSpec, options: [String: String]) -> [ProviderViolation] {
        guard !options.isEmpty else { return [] }
        var problems: [SimulatedBehaviour.Problem] = []
        _ = self.configuration.behaviour.applying(options, problems: &problems)
        return problems.map {
            ProviderViolation(field: "provider_options.\($0.option)", description: $0.description)
        }
    }

    // MARK: Calls

    public func create(_ request: ProviderRequest) async throws(StepError) -> ProviderDevice {
        let behaviour = self.behaviour(request.options)
        let losesReply = behaviour.losesReply(.create, attempt: request.attempt)
        let key = SimulatedDeviceKey(
            sagaID: request.sagaID.rawValue, generation: Int32(clamping: request.generation),
            repeated: behaviour.isUniqueByKey ? 0 : Int32.random(in: 1 ... .max))
        let host = request.ports?.host ?? ""
        _ = try await self.perform(
            .create(
                SimulatedStore.Creation(
                    key: key, deviceID: request.deviceID, userID: request.userID, host: host,
                    late: losesReply ? behaviour.late : .zero, lookupLag: behaviour.lookupLag)),
            .create, behaviour, request)
        return ProviderDevice(externalID: key.externalID, host: host, generation: request.generation)
    }

    public func start(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) -> DeviceConnection
    {
        let behaviour = self.behaviour(request.options)
        guard let key = SimulatedDeviceKey(externalID: device.externalID) else { throw Self.unknownDevice }
        let late = behaviour.losesReply(.start, attempt: request.attempt) ? behaviour.late : .zero
        guard case .started(let ago) = try await self.perform(.start(key, late: late), .start, behaviour, request)
        else { throw Self.unknownDevice }
        // Booting goes on while nobody waits: a repeated start waits for the rest only; but never for longer than a boot takes,
        // wherever the clock has gone.
        let rest = min(behaviour.boot - ago, behaviour.boot + behaviour.late)
        if rest > .zero { try await Self.sleep(rest) }
        return DeviceConnection(
            host: request.ports?.host ?? device.host, adbPort: request.ports?.adb ?? 0,
            webRTCPort: request.ports?.webRTC ?? 0)
    }

    public func stop(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) {
        guard let key = SimulatedDeviceKey(externalID: device.externalID) else { throw Self.unknownDevice }
        guard case .done = try await self.perform(.stop(key), .stop, self.behaviour(request.options), request) else {
            throw Self.unknownDevice
        }
    }

    public func destroy(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) -> Undone {
        let behaviour = self.behaviour(request.options)
        guard let key = SimulatedDeviceKey(externalID: device.externalID) else { return .nothingFound }
        let late = behaviour.losesReply(.destroy, attempt: request.attempt) ? behaviour.late : .zero
        guard case .done = try await self.perform(.destroy(key, late: late), .destroy, behaviour, request) else {
            return .nothingFound
        }
        return .undone
    }

    public func find(_ request: ProviderRequest) async throws(StepError) -> [ProviderDevice] {
        let behaviour = self.behaviour(request.options)
        guard
            case .found(let devices) = try await self.perform(
                .find(sagaID: request.sagaID.rawValue), .find, behaviour, request)
        else { return [] }
        return devices.map(Self.device)
    }

    public func listOwned() async throws(StepError) -> [OwnedDevice] {
        do throws(PostgresError) {
            return try await self.store.listAll().map { found in
                OwnedDevice(
                    device: Self.device(found), sagaID: found.key.sagaID, deviceID: found.deviceID,
                    userID: found.userID)
            }
        } catch {
            throw Self.failure(error)
        }
    }

    // MARK: Behaviour

    private func behaviour(_ options: [String: String]) -> SimulatedBehaviour {
        self.configuration.behaviour.applying(options)
    }

    /// One call: half of its latency on the way there, the effect, the other half on the way back.
    private func perform(
        _ effect: SimulatedStore.Effect, _ call: SimulatedBehaviour.Call, _ behaviour: SimulatedBehaviour,
        _ request: ProviderRequest
    ) async throws(StepError) -> SimulatedStore.Answer {
        if behaviour.latency > .zero { try await Self.sleep(behaviour.latency / 2) }
        #if FAULT_POINTS
            if behaviour.crash == call { kill(getpid(), SIGKILL) }
        #endif
        try await self.checkOutage(call, request)
        if let failure = behaviour.failure(call, attempt: request.attempt), self.counts(call, behaviour, request) {
            // The provider's own answer, or its silence: the request has left.
            try request.authorize()
            try await Self.fail(failure, call)
        }
        let answer: SimulatedStore.Answer
        do throws(SimulatedStore.Failure) {
            answer = try await self.store.submit(effect, authorize: request.authorize)
        } catch .database(let error) {
            throw Self.failure(error)
        } catch .unauthorized(let error) {
            throw error
        } catch {
            throw StepError(
                .unavailable, reason: DeviceFailureReason.providerUnavailable,
                message: "given up while it waited for the simulated provider")
        }
        if behaviour.latency > .zero { try await Self.sleep(behaviour.latency / 2) }
        if behaviour.losesReply(call, attempt: request.attempt) { throw Self.lostReply }
        return answer
    }

    /// Whether a call that is told to fail the first few times fails once more.
    private func counts(
        _ call: SimulatedBehaviour.Call, _ behaviour: SimulatedBehaviour, _ request: ProviderRequest
    ) -> Bool {
        guard call == .destroy || call == .find, behaviour.failTimes < 1_000_000 else { return true }
        return self.failures.withLock { failures in
            if failures.count > 10_000 { failures.removeAll() }
            let key = "\(request.sagaID) \(call.rawValue)"
            failures[key, default: 0] += 1
            return failures[key, default: 0] <= behaviour.failTimes
        }
    }

    private func checkOutage(_ call: SimulatedBehaviour.Call, _ request: ProviderRequest) async throws(StepError) {
        let isAway: Bool
        do throws(PostgresError) {
            isAway = try await self.outages.includes(call, at: self.configuration.site)
        } catch {
            throw Self.failure(error)
        }
        guard isAway else { return }
        try request.authorize()
        throw StepError(
            .unavailable, reason: DeviceFailureReason.providerUnavailable,
            message: "the simulated site \(self.configuration.site) is away (simulated_outage)")
    }

    private static func fail(
        _ failure: SimulatedBehaviour.Failure, _ call: SimulatedBehaviour.Call
    ) async throws(StepError) {
        let definite = call == .start ? DeviceFailureReason.bootFailed : DeviceFailureReason.providerRefused
        let passing = DeviceFailureReason.providerUnavailable
        let message = "the simulated provider was told to fail \(call.rawValue): \(failure.rawValue)"
        switch failure {
        case .invalid: throw StepError(.invalid, reason: definite, message: message)
        case .refused: throw StepError(.refused, reason: definite, message: message)
        case .throttled: throw StepError(.throttled(after: nil), reason: passing, message: message)
        case .unavailable: throw StepError(.unavailable, reason: passing, message: message)
        case .unknown: throw StepError(.unknownOutcome, reason: passing, message: message)
        case .undecidable: throw StepError(.undecidable, reason: definite, message: message)
        case .conflict:
            throw StepError(.conflict(redoing: DeviceStep.allocatePorts), reason: "PORT_TAKEN", message: message)
        case .hang:
            try await Self.sleep(.seconds(86_400))
        }
    }

    /// A cancelled wait is a lost reply.
    private static func sleep(_ duration: Duration) async throws(StepError) {
        do {
            try await Task.sleep(for: duration)
        } catch {
            throw Self.lostReply
        }
    }

    private static let lostReply = StepError(
        .unknownOutcome, reason: DeviceFailureReason.providerUnavailable,
        message: "the simulated provider's answer was lost")

    private static let unknownDevice = StepError(
        .notFound, reason: DeviceFailureReason.bootFailed, message: "the simulated provider has no such device")

    private static func device(_ found: SimulatedStore.Found) -> ProviderDevice {
        ProviderDevice(
            externalID: found.key.externalID, host: found.host, generation: Int(found.key.generation))
    }

    /// Whether anything can have been written decides.
    private static func failure(_ error: PostgresError) -> StepError {
        let isUnknown = error.isOutcomeUnknown || error.code == .connectionLost || error.code == .decoding
        return StepError(
            isUnknown ? .unknownOutcome : .unavailable, reason: DeviceFailureReason.providerUnavailable,
            message: "the simulated provider's table can't be used")
    }
}
