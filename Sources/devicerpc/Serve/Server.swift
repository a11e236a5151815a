import DeviceProvisioning
import DeviceRPC
import FoundationEssentials
import Glibc
import Logging
import NIOCore
import RPCTransport
import SagaRuntime
import ServiceLifecycle

/// The whole server, wired: what is made from the configuration, in which order it starts, and how it ends.
///
/// Start: database, migrations, ports, engine, gRPC. End, at the first signal: health and readiness say so; connections are
/// drained, while the engine goes on, so that unary calls under way get their answers (after `drain-timeout`, that they
/// are to ask elsewhere); then the engine finishes and records its calls to providers and leaves the rest to other replicas; then the operators' port, then the database.
struct Server {
    /// Connections for the simulated provider, the device tables, port keeping and the probe.
    private static let toolConnections = 4
    private static let maximumWaiters = 20_000

    let configuration: ServerConfiguration
    let registry: MetricsRegistry
    let logger: Logger
    /// Of `logger`.
    let causes: LogCauses
    let output: ServerOutput
    /// Files and sockets that this process may have open.
    let fileLimit: Int
    /// Told once when the server takes calls, with what to tell people.
    let onReady: @Sendable (ServerAddresses) -> Void

    /// Returns once the server has ended, also if it was told to before it was up.
    func run() async throws {
        // From here on: whatever is being started when a signal comes is stopped again.
        let signals = ShutdownSignals { [logger, output] words, level in
            logger.log(level: level, "\(words)")
            if level == .critical { await output.flush(within: ServerOutput.patienceAtOnce) }
        }
        do {
            try await signals.interrupting { try await self.run(signals) }
        } catch is CancellationError where signals.isStopping {
            self.logger.notice("stopped before it was up")
        }
    }

    private func run(_ signals: ShutdownSignals) async throws {
        try await self.checkFiles()
        let budget = try self.descriptorBudget()
        var database = try await ServerDatabase.open(self.configuration, logger: self.logger)
        let result: Result<Void, any Error>
        do {
            result = .success(try await self.serve(&database, signals, budget))
        } catch {
            result = .failure(error)
        }
        await database.close()
        try result.get()
    }

    private func serve(
        _ database: inout ServerDatabase, _ signals: ShutdownSignals, _ budget: DescriptorBudget
    ) async throws {
        if let directory = self.configuration.lockDirectory { try Self.makeDirectory(directory) }
        let patience = DatabasePatience(logger: self.logger)
        let applied = try await database.migrate(patience)
        if !applied.isEmpty { self.logger.info("migrated the database", metadata: ["versions": "\(applied)"]) }
        let connection = database.connection
        let tools = PostgresPool(connection, size: Self.toolConnections, maximumWaiters: Self.maximumWaiters)
        let providers = try self.makeProviders(tools, budget)
        let quota = try self.makeQuotaClient(budget)
        let sites = SiteKeeper(providers: providers, database: tools, logger: self.logger)
        try await patience.run { try await sites.prepare() }
        try await patience.run { try await PortKeeper(providers: providers, database: tools).prepare() }

        let devices = DeviceStore(database: tools)
        let sagas = RuntimeDeviceSagas(devices: devices)
        let creation = DeviceCreation.Configuration(portCoolDown: self.configuration.provisioning.portCoolDown)
        let runtime = SagaRuntime(
            configuration: self.runtimeConfiguration(connection, providers),
            definitions: DeviceCreation.definitions(providers: providers, quota: quota, configuration: creation) + [
                DeviceDeletion.definition(providers: providers, quota: quota, sagas: sagas, configuration: creation)
            ] + DeviceControl.definitions(providers: providers, sagas: sagas, configuration: creation),
            logger: self.logger, observer: SagaMetrics(registry: self.registry))
        sagas.bind(runtime)
        let restored = try await self.lookForRestore(runtime, tools, patience)
        quota?.useClock { runtime.now }
        let audit = AuditLog(logger: self.logger)
        let service = DeviceService(
            runtime: runtime, providers: providers, devices: devices,
            digestKey: try await patience.run { try await runtime.requestDigestKey() }, audit: audit,
            longReads: (self.configuration.database.queryConnections / 2, Self.toolConnections / 2),
            heldBack: { [registry] in RPCMetrics.count($0, in: registry) }, logger: self.logger)
        let operators = DeviceAdminService(
            runtime: runtime, ports: PortStore(database: tools), audit: audit,
            heldBack: { [registry] in RPCMetrics.count($0, in: registry) }, logger: self.logger)
        let health = HealthService(["": .notServing, DeviceService.name: .notServing])
        let application = [service.service, operators.service, health.service]
        let services =
            application + ReflectionService(descriptorSet: DescriptorSet.bytes, services: application).services
        let authenticator = try await self.makeAuthenticator(services, audit)
        let accessLog = self.configuration.log.isAccessLogged ? AccessLog(logger: self.logger) : nil
        let rpc = RPCServer(
            configuration: self.rpcConfiguration(accessLog, budget), services: services,
            interceptors: [authenticator ?? OpenAccess()], logger: self.logger,
            observer: RPCMetrics(services: services, registry: self.registry))

        let stopLimit = self.stopLimit(database)
        defer { stopLimit.cancel() }
        try await self.run(
            signals,
            Parts(
                runtime: runtime, sites: sites, rpc: rpc, authenticator: authenticator, health: health, tools: tools,
                accessLog: accessLog, stopLimit: stopLimit, restored: restored))

        await providers.shutdown()
        await quota?.shutdown()
        await tools.shutdown()
    }

    // MARK: Running

    private struct Parts: Sendable {
        let runtime: SagaRuntime
        let sites: SiteKeeper
        let rpc: RPCServer
        let authenticator: Authenticator?
        let health: HealthService
        let tools: PostgresPool
        let accessLog: AccessLog?
        let stopLimit: StopLimit
        /// The database, if it may have been restored.
        let restored: RestoredDatabase?
    }

    /// Before this process has a lease of its own.
    private func lookForRestore(
        _ runtime: SagaRuntime, _ tools: PostgresPool, _ patience: DatabasePatience
    ) async throws -> RestoredDatabase? {
        guard self.configuration.database.url != nil else { return nil }
        let database = RestoredDatabase(pool: tools)
        let age = self.configuration.database.restoreSuspect
        guard let reason = try await patience.run({ try await database.check(suspectAfter: age) }) else { return nil }
        runtime.holdAdoption(reason)
        return database
    }

    /// Runs everything until a signal, or until a part of it fails.
    private func run(_ signals: ShutdownSignals, _ parts: Parts) async throws {
        let gate = ShutdownGate()
        let state = ServingState(runtime: parts.runtime, gate: gate, health: parts.health)
        let probe = DatabaseProbe(pool: parts.tools) { problem in
            state.databaseProblem = problem
            parts.runtime.setDatabaseProblem(problem)
        }
        let operators = OperatorsServer(
            address: self.configuration.listeners.operators, registry: self.registry, logger: self.logger,
            readiness: { state.readiness })
        let ready = self.registry.gauge("devicerpc_ready")
        self.registry.onScrape { ready.set(state.readiness.isReady ? 1.0 : 0.0) }

        let rpcAddress = try await self.listen(parts.rpc)
        let group = ServiceGroupBox()
        let stop = StopService(group: group)
        let isWanted = signals.handle {
            gate.close()
            state.publish()
            parts.stopLimit.begin()
            stop.request()
        }
        guard isWanted else { throw CancellationError() }
        // The last one goes first.
        let logging = parts.accessLog.map { [ServiceGroupConfiguration.ServiceConfiguration(service: $0)] } ?? []
        let services: [ServiceGroupConfiguration.ServiceConfiguration] =
            logging + [
                .init(service: stop), .init(service: LogCausesService(causes: self.causes, logger: self.logger)),
                .init(service: operators), .init(service: probe), .init(service: SiteService(keeper: parts.sites)),
                .init(
                    service: UnfinishedSagasGauge(
                        runtime: parts.runtime, metrics: SagaMetrics(registry: self.registry))),
                .init(service: self.retention(parts)),
                .init(
                    service: AdoptionHold(
                        runtime: parts.runtime, database: parts.restored, registry: self.registry,
                        logger: self.causes.thinning(self.logger))),
                .init(service: AuthenticatorService(authenticator: parts.authenticator)),
                .init(
                    service: RuntimeService(
                        runtime: parts.runtime, gate: gate, drainTimeout: self.configuration.listeners.drainTimeout)),
                .init(
                    service: RPCServerService(
                        server: parts.rpc, drainTimeout: self.configuration.listeners.drainTimeout,
                        giveUp: { parts.runtime.endWaits() })),
                .init(
                    service: ReadyService(
                        state: state,
                        onReady: {
                            self.onReady(
                                ServerAddresses(rpc: rpcAddress, operators: await operators.boundAddress()))
                        }),
                    successTerminationBehavior: .ignore),
            ]
        try await group.run(services, logger: self.logger)
    }

    private func retention(_ parts: Parts) -> RetentionService {
        let settings = self.configuration.database
        let retention = Retention(
            pool: parts.tools, keep: settings.retention, time: settings.retentionTime,
            logger: self.causes.thinning(self.logger))
        return RetentionService(
            retention: settings.retention > .zero ? retention : nil, runtime: parts.runtime,
            metrics: SagaMetrics(registry: self.registry))
    }

    private func stopLimit(_ database: ServerDatabase) -> StopLimit {
        let limit = self.configuration.listeners.drainTimeout + StopLimit.grace
        return StopLimit(limit) { [logger, output] in
            logger.error("the stop is given up after \(limit): what is open is left to other replicas")
            await database.close()
            await output.flush(within: ServerOutput.patience)
            _exit(CommandStatus.success.rawValue)
        }
    }

    private func listen(_ server: RPCServer) async throws -> ListenAddress {
        let wanted = self.configuration.listeners.rpc
        do {
            let address = try await server.start()
            return ListenAddress(host: wanted.host, port: address.port ?? wanted.port)
        } catch let error as RPCTLSError {
            throw ConfigurationError(problems: [error.words])
        } catch {
            throw ConfigurationError(
                problems: ["\(Settings.listen.description.environmentName): can't listen on \(wanted): \(error)"])
        }
    }

    /// What is wrong with files is told at once and together, and not only after a wait for the database.
    private func checkFiles() async throws {
        var problems: [String] = []
        do throws(RPCTLSError) {
            try self.configuration.listeners.tls?.check()
        } catch {
            problems.append(error.words)
        }
        do {
            try await self.configuration.authentication?.check()
        } catch let error as Authenticator.KeySetError {
            problems.append(error.words)
        }
        if !problems.isEmpty { throw ConfigurationError(problems: problems) }
    }

    // MARK: Descriptors

    private var eventLoops: Int {
        let configured = self.configuration.listeners.eventLoops
        return configured > 0 ? configured : System.coreCount
    }

    /// How the open files are shared out, and a warning if clients get fewer than they are promised.
    private func descriptorBudget() throws(ConfigurationError) -> DescriptorBudget {
        var rpc = RPCServerConfiguration(host: "", port: 0)
        self.configuration.limits.apply(to: &rpc)
        let wish = DescriptorBudget.Wish(
            connections: rpc.maximumConnections, journalConnections: self.configuration.database.journalConnections,
            readConnections: self.configuration.database.queryConnections + Self.toolConnections,
            // Those of gRPC, and those that everything else shares.
            eventLoops: self.eventLoops + System.coreCount,
            userServiceConnections: self.configuration.userService == nil
                ? 0 : QuotaConfiguration.usualMaximumConnections,
            engineConnections: self.configuration.provisioning.engines * RedroidConfiguration.usualMaximumConnections)
        do throws(DescriptorBudget.TooFew) {
            let budget = try DescriptorBudget(limit: self.fileLimit, wish)
            if budget.connections < wish.connections {
                self.logger.warning(
                    "this process may have \(self.fileLimit) files open (RLIMIT_NOFILE): it takes \(budget.connections) connections at a time; for \(wish.connections) it would need \(budget.wanted)"
                )
            }
            return budget
        } catch {
            throw ConfigurationError(
                problems: [
                    "this process may have \(error.limit) files open (RLIMIT_NOFILE): it needs at least \(error.needed) (ulimit -n, LimitNOFILE= in systemd)"
                ])
        }
    }

    // MARK: Making the parts

    private func makeProviders(_ tools: PostgresPool, _ budget: DescriptorBudget) throws -> ProviderRegistry {
        let settings = self.configuration.provisioning
        let memory = SiteStore(database: tools)
        let sites = try settings.sites ?? self.shorthandSites()
        let engines = max(sites.count { $0.kind == .redroid }, 1)
        let provided = sites.map { site in
            switch site.content {
            case .simulated(let simulated):
                return ProviderSite(
                    name: site.name, provider: SimulatedProvider(configuration: simulated, database: tools),
                    limits: site.limits)
            case .redroid(var redroid):
                redroid.maximumConnections = max(1, budget.engineConnections / engines)
                return ProviderSite(
                    name: site.name,
                    provider: RedroidProvider(configuration: redroid, memory: memory, logger: self.logger),
                    limits: site.limits)
            }
        }
        // Validated: there is a default, and it is among them.
        let kind = settings.defaultProvider.flatMap { ProviderKind(name: $0) } ?? .simulated
        return ProviderRegistry(sites: provided, default: kind)
    }

    /// The sites that the settings of a single engine, and those of the simulated provider, stand for.
    private func shorthandSites() throws -> [SiteConfiguration] {
        let settings = self.configuration.provisioning
        var sites: [SiteConfiguration] = []
        if settings.isSimulatedEnabled {
            var simulated = SimulatedConfiguration(
                behaviour: SimulatedBehaviour(latency: settings.simulatedLatency, boot: settings.simulatedBoot))
            if settings.simulatedHosts > 0 {
                simulated.hosts = SimulatedConfiguration.cappedHosts(
                    count: settings.simulatedHosts, adb: settings.adbPorts, webRTC: settings.webRTCPorts)
            }
            if let options = settings.simulatedOptions {
                try simulated.apply(
                    options: options, key: Settings.simulatedOptions.description.environmentName)
            }
            sites.append(SiteConfiguration(name: ProviderKind.simulated.name, content: .simulated(simulated)))
        }
        if settings.isRedroidEnabled {
            let redroid = try RedroidConfiguration(
                installation: self.configuration.engine.installation, adbPorts: settings.adbPorts,
                webRTCPorts: settings.webRTCPorts, setting: { settings.redroidEnvironment[$0] })
            if redroid.ports.name == ProviderKind.simulated.name {
                throw ProviderConfigurationError(
                    key: "DEVICERPC_REDROID_PORT_HOST", problem: "simulated is the simulated provider's site")
            }
            sites.append(SiteConfiguration(name: redroid.ports.name, content: .redroid(redroid)))
        }
        return sites
    }

    private func makeQuotaClient(_ budget: DescriptorBudget) throws -> QuotaClient? {
        guard let service = self.configuration.userService else { return nil }
        return QuotaClient(
            configuration: try QuotaConfiguration(
                baseURL: service.url, jwtSecret: service.jwtSecret, isIdempotent: service.isIdempotent,
                doubt: service.doubt, timeout: service.timeout, maximumConnections: budget.userServiceConnections,
                authorities: service.authorities),
            logger: self.logger, assumed: { [registry] in SagaMetrics.assumed(isIncrement: $0, in: registry) })
    }

    private func makeAuthenticator(_ services: [RPCService], _ audit: AuditLog) async throws -> Authenticator? {
        guard let configuration = self.configuration.authentication else { return nil }
        do {
            return try await Authenticator(
                configuration, rules: AccessRules(services: services), audit: audit,
                heldBack: { [registry] in RPCMetrics.count($0, in: registry) }, logger: self.logger)
        } catch let error as Authenticator.KeySetError {
            throw ConfigurationError(problems: [error.words])
        }
    }

    private func runtimeConfiguration(
        _ connection: PostgresConfiguration, _ providers: ProviderRegistry
    ) -> SagaRuntimeConfiguration {
        var runtime = SagaRuntimeConfiguration(
            connection: connection, instanceName: self.configuration.engine.instance ?? Self.uniqueInstanceName(),
            dataDirectory: self.configuration.lockDirectory)
        runtime.maximumInFlight = self.configuration.engine.maximumSagas
        runtime.maximumInFlightPerUser = self.configuration.engine.maximumSagasPerUser
        runtime.journalWriters = self.configuration.database.journalConnections
        runtime.readers = self.configuration.database.queryConnections
        runtime.drainTimeout = self.configuration.listeners.drainTimeout
        runtime.sites = { providers.served }
        runtime.callLimits = { providers.callLimits($0) }
        runtime.dependencyOfSite = { ProviderRegistry.dependency(ofSite: $0) }
        return runtime
    }

    private func rpcConfiguration(_ accessLog: AccessLog?, _ budget: DescriptorBudget) -> RPCServerConfiguration {
        let listeners = self.configuration.listeners
        var rpc = RPCServerConfiguration(host: listeners.rpc.host, port: listeners.rpc.port)
        rpc.eventLoops = self.eventLoops
        rpc.maximumMessageBytes = listeners.maximumMessageBytes
        rpc.drainTimeout = listeners.drainTimeout + RPCServerService.lastAnswers
        rpc.drainError = .shuttingDown
        rpc.tls = listeners.tls
        if let accessLog { rpc.accessLog = { accessLog.ended($0) } }
        self.configuration.connections.apply(to: &rpc)
        self.configuration.limits.apply(to: &rpc)
        rpc.maximumConnections = budget.connections
        return rpc
    }

    private static func makeDirectory(_ path: String) throws {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw ConfigurationError(
                problems: ["\(Settings.dataDirectory.description.environmentName): can't make \(path): \(error)"])
        }
    }

    /// Host, process and a random part, so that no two processes ever share it.
    private static func uniqueInstanceName() -> String {
        var name = [CChar](repeating: 0, count: 65)
        let host =
            gethostname(&name, 64) == 0
            ? String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) : "host"
        return "\(host.prefix(60))-\(getpid())-\(String(UInt32.random(in: 0 ... .max), radix: 36))"
    }
}

extension RPCTLSError {
    fileprivate var words: String {
        "\(self.part.setting.environmentName): \(self) (allowed: a PEM file\(self.part == .key ? " without a passphrase" : ""))"
    }
}

extension Authenticator.KeySetError {
    fileprivate var words: String {
        "\(Settings.keySet.description.environmentName): \(self) (allowed: a JWKS file with public keys)"
    }
}

extension RPCTLSError.Part {
    fileprivate var setting: SettingDescription {
        switch self {
        case .certificate: Settings.tlsCertificate.description
        case .key: Settings.tlsKey.description
        case .authorities: Settings.tlsClientCA.description
        }
    }
}

/// Where a server can be reached.
struct ServerAddresses: Sendable {
    let rpc: ListenAddress
    let operators: ListenAddress
}
