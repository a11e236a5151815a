public import Logging
import SagaRuntime
import Synchronization

/// Android containers (redroid) on a Docker engine.
///
/// A container is named by saga and generation, which makes create unique by key: an engine refuses a second container
/// of that name, and what is there is adopted. `create` also starts the container, because an engine binds host ports
/// only then; a port that a stranger holds is found while ALLOCATE_PORTS can still be done again.
public final class RedroidProvider: DeviceProvider {
    let configuration: RedroidConfiguration
    let docker: DockerClient
    let adb: ADBClient
    let logger: Logger
    let misdirections = Mutex(Occasionally())
    private let identity: EngineIdentity?

    /// - Parameter memory: where it is remembered which engine the site's name stands for; `nil`: nobody asks.
    public init(configuration: RedroidConfiguration, memory: (any EngineMemory)? = nil, logger: Logger) {
        self.configuration = configuration
        let docker = DockerClient(
            endpoint: configuration.engine, maximumConnections: configuration.maximumConnections)
        self.docker = docker
        self.adb = ADBClient(host: configuration.adbServerHost, port: configuration.adbServerPort)
        self.logger = logger
        self.identity = memory.map {
            EngineIdentity(site: configuration.ports.name, docker: docker, memory: $0, logger: logger)
        }
    }

    public var canServe: Bool { self.identity?.isRight ?? true }
    public func look() async { _ = await self.identity?.ask() }

    /// Makes sure, before effects, that it is the site's own engine that answers: as of a second ago, at the latest.
    func checkEngine(_ call: RedroidCall) async throws(StepError) {
        if let problem = await self.identity?.problem() { throw call.unavailable(problem) }
    }

    /// The same after an answer that says what is not there: another engine would say that of everything.
    func checkAbsence(_ call: RedroidCall) async throws(StepError) {
        if let problem = await self.identity?.ask() { throw call.unavailable(problem) }
    }

    public var kind: ProviderKind { .redroid }
    public var createIsUniqueByKey: Bool { true }
    /// A request that an engine has read is carried out even if nobody waits any more.
    public func lag(options: [String: String]) -> Duration { self.configuration.callLimit + .seconds(5) }
    public var hosts: [PortHost] { [self.configuration.ports] }

    public var callLimits: ProviderCallLimits {
        let limit = self.configuration.callLimit
        return ProviderCallLimits(
            create: limit, start: self.configuration.bootLimit + limit, stop: limit, destroy: limit, find: limit)
    }

    public func violations(spec: DeviceSpec, options: [String: String]) -> [ProviderViolation] {
        var violations: [ProviderViolation] = []
        if AndroidVersion(spec.androidVersion).flatMap({ self.configuration.images[$0] }) == nil {
            let known = self.configuration.images.keys.sorted().map(\.description).joined(separator: ", ")
            violations.append(
                ProviderViolation(field: "spec.android_version", description: "provider redroid has \(known)"))
        }
        _ = RedroidOptions(options, configuration: self.configuration, violations: &violations)
        return violations
    }

    public func shutdown() async {
        await self.docker.shutdown()
    }
}
