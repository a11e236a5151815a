public import Logging
import Synchronization

/// What the runtime needs to know.
public struct SagaRuntimeConfiguration: Sendable {
    /// Of engine connections; the session settings that the plans need are set by the runtime.
    public var connection: PostgresConfiguration
    /// The replica's name; a second live holder is a start error.
    public var instanceName: String
    /// Where the proof that a predecessor is dead is kept (a lock); `nil`: none.
    public var dataDirectory: String?
    /// Sagas that this process drives at once; beyond it `submit` says `overloaded`.
    public var maximumInFlight = 8192
    /// The same for the sagas of one user.
    public var maximumInFlightPerUser = 4096
    /// Connections that flush in parallel.
    public var journalWriters = 2
    /// Connections for everything that reads.
    public var readers = 4
    /// How long others wait before they take this instance for dead.
    public var leaseDuration: Duration = .seconds(6)
    /// How often the lease is renewed.
    public var leaseRenewal: Duration = .seconds(2)
    /// How often sagas without a living owner are looked for.
    public var sweepInterval: Duration = .seconds(1)
    /// From which pause on a saga goes to sleep: one costs two flushes.
    public var sleepsFrom: Duration = .seconds(5)
    /// How long a graceful shutdown waits for what sagas have under way.
    public var drainTimeout: Duration = .seconds(30)
    /// The sites that this process can call, now (docs/sites.md); `nil`: its definitions know none.
    public var sites: (@Sendable () -> Set<String>)?
    /// The dependency that calls to a site go by; `nil`: none.
    public var dependencyOfSite: @Sendable (_ site: String) -> String? = { _ in nil }
    /// What a dependency of calls can take, over all replicas, and its site; `nil`: nobody limits it.
    public var callLimits: @Sendable (_ dependency: String) -> (site: String, limits: CallLimits)? = { _ in nil }

    public init(connection: PostgresConfiguration, instanceName: String, dataDirectory: String?) {
        self.connection = connection
        self.instanceName = instanceName
        self.dataDirectory = dataDirectory
    }
}

/// What became of a new saga.
public enum Submission: Sendable, Equatable {
    /// It is durable.
    case started(SagaID)
    /// The same request came before: this is the saga that it started.
    case duplicate(SagaID)

    public var id: SagaID {
        switch self {
        case .started(let id), .duplicate(let id): id
        }
    }
}

/// What became of a command that somebody waits for.
public enum CommandOutcome: Sendable, Equatable {
    case consumed(SagaCommand.Result)
    /// Nobody has come to it in the time given. It stands, and is consumed once somebody does.
    case pending
    /// The saga was over before.
    case over
}

/// The durable saga engine: drives sagas on PostgreSQL, survives the loss of any process, needs no control plane.
///
/// `run()` owns everything. An instance that finds itself fenced writes nothing more; a new one takes its place in the
/// same process.
public final class SagaRuntime: Sendable {
    /// One registered instance, with everything that acts in its name.
    private struct Incarnation: Sendable {
        var lease: InstanceLease
        var journal: Journal
        var worker: SagaWorker
        var adoption: SagaAdoption
    }

    private struct State {
        var current: Incarnation?
        var isDraining = false
        /// When a drain waits no longer for what sagas have under way.
        var drainEnd: BootTime?
        /// Why the database can't be used, as somebody found who watches it more closely than the lease does.
        var databaseProblem: String?
        /// Why no sagas are taken up.
        var adoptionHold: String?
        /// Held as long as this process lives, through all its incarnations.
        var lock: InstanceLock?
        var generator: Surroundings
    }

    /// What closures made in `init` look through.
    private final class Shared: Sendable {
        let state: Mutex<State>
        var current: Incarnation? { self.state.withLock { $0.current } }

        init(_ surroundings: Surroundings) { self.state = Mutex(State(generator: surroundings)) }
    }

    private let configuration: SagaRuntimeConfiguration
    private let surroundings: Surroundings
    private let registry: SagaRegistry
    private let logger: Logger
    private let causes: LogCauses
    private let observer: any SagaRuntimeObserver
    private let clock: DatabaseClock
    private let days: SagaDays
    private let statements = LeafStatements()
    private let partitions: PartitionKeeper
    private let features: ClusterFeatures
    private let plans: SagaPlans
    private let commands: SagaCommands
    private let sleepers: SagaSleepers
    private let reader: SagaReader
    private let feed: EventFeed
    private let relay: EventRelay
    private let sites: Sites?
    private let shared: Shared

    /// For everything that reads: the device tables, lists, look-ups.
    public let pool: PostgresPool

    public init(
        configuration: SagaRuntimeConfiguration, definitions: [SagaDefinition], logger: Logger,
        observer: any SagaRuntimeObserver = NoObserver()
    ) {
        let surroundings = configuration.connection.surroundings
        let shared = Shared(surroundings)
        let causes = LogCauses { surroundings.now }
        let logger = causes.thinning(logger)
        let registry = SagaRegistry(definitions)
        let feed = EventFeed()
        let pool = PostgresPool(configuration.connection, size: configuration.readers, maximumWaiters: 20_000)
        let days = SagaDays(surroundings)
        let plans = SagaPlans(pool: pool, definitions: registry)
        let reader = SagaReader(pool: pool, days: days, plans: plans)
        self.configuration = configuration
        self.surroundings = surroundings
        self.registry = registry
        self.logger = logger
        self.causes = causes
        self.observer = observer
        self.shared = shared
        self.pool = pool
        self.feed = feed
        self.reader = reader
        self.clock = DatabaseClock(surroundings)
        self.days = days
        self.plans = plans
        self.sites = configuration.sites.map { Sites(pool: pool, local: $0) }
        self.features = ClusterFeatures(pool: pool, logger: logger)
        self.commands = SagaCommands(pool: pool, days: days)
        self.sleepers = SagaSleepers(pool: pool, days: days, clock: self.clock)
        self.partitions = PartitionKeeper(pool: pool, days: days, clock: self.clock, logger: logger)
        self.relay = EventRelay(
            configuration: EventRelay.Configuration(connection: configuration.connection),
            pool: pool, days: days, feed: feed, reader: reader, isHeld: { shared.current?.worker.handle($0) != nil },
            hasPeers: { shared.current?.lease.hasPeers ?? false }, logger: logger)
    }

    // MARK: Life

    /// Runs until `beginGracefulShutdown()` or cancellation.
    ///
    /// - Throws: `InstanceLeaseError` if another live process holds the instance's name or its data directory;
    ///   `SagaDefinitionError` if definitions don't agree.
    public func run() async throws {
        if let problem = self.registry.problem { throw problem }
        do {
            try await self.prepare()
        } catch {
            await self.pool.shutdown()
            throw error
        }
        let failure = await withTaskGroup(of: (any Error)?.self) { group -> (any Error)? in
            group.addTask {
                await self.partitions.run()
                return nil
            }
            group.addTask {
                await self.relay.run()
                return nil
            }
            group.addTask {
                await self.features.run()
                return nil
            }
            group.addTask {
                await self.measure()
                return nil
            }
            group.addTask {
                await self.listenForCommands()
                return nil
            }
            group.addTask { await self.runIncarnations() }
            let failure = await group.next() ?? nil
            group.cancelAll()
            return failure
        }
        await self.pool.shutdown()
        if let failure { throw failure }
    }

    /// The clock, the partitions and the plans, as soon as the database answers.
    private func prepare() async throws(SagaDefinitionError) {
        while !Task.isCancelled, !self.isDraining {
            do {
                try await self.clock.synchronise(with: self.pool)
                try await self.partitions.ensure()
                try await self.plans.publish()
                return
            } catch let error as SagaDefinitionError {
                throw error
            } catch {
                self.logger.log(.warning, cause: "runtime.prepare", "[SAGA] waiting for the database: \(error)")
                try? await self.surroundings.sleep(for: .milliseconds(500))
            }
        }
    }

    /// Drains: no new sagas, watchers end, calls under way are finished and recorded, the rest is left to others.
    /// May be called more than once.
    ///
    /// - Parameter limit: how long it waits for what sagas have under way; `nil`: the configuration's `drainTimeout`.
    public func beginGracefulShutdown(within limit: Duration? = nil) {
        let end = self.surroundings.now + (limit ?? self.configuration.drainTimeout)
        let (isFirst, worker) = self.shared.state.withLock { state in
            defer {
                state.isDraining = true
                state.drainEnd = state.drainEnd ?? end
            }
            return (!state.isDraining, state.current?.worker)
        }
        guard isFirst else { return }
        self.feed.beginDraining()
        worker?.beginDraining()
    }

    /// Whoever waits for a saga here is told that this server is shutting down; the sagas themselves go on. For calls that
    /// outlast the time that a drain gives them.
    public func endWaits() {
        // Followers first: whoever no longer waits for a saga held here follows it, and is told there.
        self.feed.beginDraining()
        self.shared.current?.worker.endWaits()
    }

    private var isDraining: Bool { self.shared.state.withLock { $0.isDraining } }

    /// When a drain that is under way, or begins now, waits no longer.
    private var drainEnd: BootTime {
        self.shared.state.withLock { $0.drainEnd } ?? self.surroundings.now + self.configuration.drainTimeout
    }

    private enum FencedEnd {
        case clearedAway
        /// A draining server waits for them no longer.
        case timeIsUp
    }

    /// Runs one instance after the other; a new one takes over when the one before finds itself fenced.
    private func runIncarnations() async -> (any Error)? {
        await withTaskGroup(of: FencedEnd.self) { fenced in
            var leftovers = 0
            while !Task.isCancelled, !self.isDraining {
                let incarnation: Incarnation
                do {
                    incarnation = try await self.makeIncarnation()
                } catch let error as InstanceLeaseError {
                    fenced.cancelAll()
                    return error
                } catch {
                    self.logger.log(
                        .warning, cause: "runtime.register", "[SAGA] can't register this instance: \(error)")
                    try? await self.surroundings.sleep(for: .milliseconds(500))
                    continue
                }
                let tasks = await self.run(incarnation)
                // Its journal lives on until its last saga is let go of, its worker until what its calls made is cleared away.
                leftovers += 1
                fenced.addTask {
                    await withTaskCancellationHandler {
                        await self.letGo(of: incarnation)
                        incarnation.worker.stop()
                        tasks.journal.cancel()
                        await tasks.worker.value
                    } onCancel: {
                        tasks.worker.cancel()
                    }
                    return .clearedAway
                }
            }
            fenced.addTask {
                try? await self.surroundings.sleep(for: max(.zero, self.drainEnd - self.surroundings.now))
                return .timeIsUp
            }
            while leftovers > 0, await fenced.next() == .clearedAway { leftovers -= 1 }
            fenced.cancelAll()
            return nil
        }
    }

    /// Waits until a fenced instance has let go of its sagas, and says that none of them has killed this process.
    private func letGo(of incarnation: Incarnation) async {
        var forgiven: [SagaID] = []
        while !Task.isCancelled {
            let isOver = incarnation.worker.count == 0
            forgiven += incarnation.worker.takeFenced()
            if await incarnation.adoption.forgive(forgiven) { forgiven = [] }
            if isOver, forgiven.isEmpty { return }
            try? await self.surroundings.sleep(for: .milliseconds(100))
        }
    }

    private func makeIncarnation() async throws -> Incarnation {
        let lease = try await InstanceLease.register(
            InstanceLease.Configuration(
                connection: self.configuration.connection, name: self.configuration.instanceName,
                duration: self.configuration.leaseDuration, renewal: self.configuration.leaseRenewal),
            lock: try self.lock(), clock: self.clock, logger: self.logger)
        let journal = Journal(
            configuration: Journal.Configuration(
                connection: self.configuration.connection, writers: self.configuration.journalWriters),
            owner: lease.instanceID, days: self.days, clock: self.clock, logger: self.logger, observer: self.observer,
            registerBackends: { writer, connection in try await lease.register(backend: connection, slot: writer) },
            unreachable: { [shared] in shared.current?.worker.giveUpCreations(doubtful: $0) })
        await self.lookAtSites(instance: lease.instanceID, worker: nil)
        // Its first sagas are of the version that all know, this one included.
        try? await self.features.look()
        let relay = self.relay
        let worker = SagaWorker(
            SagaWorker.Dependencies(
                journal: journal, lease: lease, clock: self.clock, feed: self.feed, reader: self.reader,
                registry: self.registry, commands: self.commands, sleepsFrom: self.configuration.sleepsFrom,
                observer: self.observer,
                announce: { relay.announce($0) },
                callLimits: self.share,
                isServed: { [sites = self.sites] in sites?.isServedHere($0) ?? true }, logger: self.logger))
        let adoption = SagaAdoption(
            lease: lease, worker: worker, pool: self.pool, reader: self.reader, days: self.days,
            features: self.features, sleepers: self.sleepers, commands: self.commands, registry: self.registry,
            clock: self.clock, sites: self.sites, mayCall: self.mayCall,
            isHeld: { [shared] in shared.state.withLock { $0.adoptionHold != nil } },
            interval: self.configuration.sweepInterval,
            maximumInFlight: self.configuration.maximumInFlight,
            isTransactionPooled: self.configuration.connection.isTransactionPooled, logger: self.logger)
        return Incarnation(lease: lease, journal: journal, worker: worker, adoption: adoption)
    }

    private func lock() throws -> InstanceLock? {
        guard let directory = self.configuration.dataDirectory else { return nil }
        return try self.shared.state.withLock { state in
            if let lock = state.lock { return lock }
            let lock = try InstanceLock.acquire(in: directory)
            state.lock = lock
            return lock
        }
    }

    /// Runs one instance until it is fenced, drained or cancelled.
    ///
    /// - Returns: its tasks that go on after a fencing, and are to be ended once nobody needs them.
    private func run(
        _ incarnation: Incarnation
    ) async -> (journal: Task<Void, Never>, worker: Task<Void, Never>) {
        let adoption = incarnation.adoption
        // Not structured under this function: after a fencing they go on until their last call is answered for.
        let journal = Task { await incarnation.journal.run() }
        let worker = Task { await incarnation.worker.run() }
        let lease = Task { await incarnation.lease.run() }
        let sweep = Task { await adoption.run() }
        self.shared.state.withLock { $0.current = incarnation }
        while !Task.isCancelled, !incarnation.lease.isFenced {
            if self.isDraining {
                sweep.cancel()
                incarnation.worker.beginDraining()
                // Whatever waits for a call or a retry is let go of at once; what writes, ends its write.
                let limit = self.drainEnd
                var quiet: [SagaWorker.Quiet] = []
                while self.surroundings.now < limit, !Task.isCancelled {
                    let isBusy = incarnation.worker.isBusy
                    quiet += incarnation.worker.takeQuiet()
                    if await adoption.giveBack(quiet) { quiet = [] }
                    if !isBusy, quiet.isEmpty { break }
                    try? await self.surroundings.sleep(for: .milliseconds(50))
                }
                break
            }
            try? await self.surroundings.sleep(for: .milliseconds(50))
        }
        self.shared.state.withLock { $0.current = nil }
        sweep.cancel()
        if incarnation.lease.isFenced, !Task.isCancelled {
            self.logger.error("[SAGA] this instance is fenced: it writes nothing more, a new one takes its place")
            incarnation.worker.endWaits()
            return (journal, worker)
        }
        // Told to stop: what still runs is left to whoever adopts it, at once, because the lease ends here.
        worker.cancel()
        journal.cancel()
        _ = await (worker.value, journal.value)
        await incarnation.lease.release(leaves: self.days.open())
        lease.cancel()
        await lease.value
        return (journal, worker)
    }

    /// Gauges, every second, and what the log has left out.
    private func measure() async {
        // A database that is away has not lost them.
        var (parked, quarantined) = (0, 0)
        var round = 0
        while !Task.isCancelled {
            if let current = self.shared.current {
                await self.lookAtSites(instance: current.lease.instanceID, worker: current.worker)
                current.worker.refreshPermits()
                // It looks at every saga under way, and people who are told of it need minutes.
                if round % 3 == 0, let counts = await self.waitingCounts() {
                    self.observer.waiting(asleep: counts.asleep, unserved: counts.unserved)
                }
                parked = await self.parkedCount() ?? parked
                let quarantine = SagaQuarantine(pool: self.pool)
                quarantined = (try? await quarantine.count(tidies: round % 10 == 0)) ?? quarantined
                round += 1
                self.observer.measured(
                    inProgress: current.worker.countsByType, parked: parked, quarantined: quarantined,
                    leaseAge: current.lease.age, daysAhead: self.partitions.daysAhead)
                for feature in ClusterFeature.known {
                    self.observer.featureSwitched(feature.name, isOn: self.features.isOn(feature))
                }
            }
            self.causes.tellLeftOut(to: self.logger)
            try? await self.surroundings.sleep(for: .seconds(1))
        }
    }

    /// Tells the drivers of sagas of their commands. It only makes that faster: a flush that ends a saga, parks it or puts it to
    /// sleep looks for itself.
    private func listenForCommands() async {
        while !Task.isCancelled {
            if let worker = self.shared.current?.worker, worker.count > 0,
                let commands = try? await self.commands.openOfDriven()
            {
                worker.deliver(commands)
            }
            try? await self.surroundings.sleep(for: .milliseconds(500))
        }
    }

    private func lookAtSites(instance: Int64, worker: SagaWorker?) async {
        guard let sites = self.sites else { return }
        let isStillBusy = { [dependencyOfSite = self.configuration.dependencyOfSite] (site: String) in
            dependencyOfSite(site).map { worker?.hasCalls(at: $0) ?? false } ?? true
        }
        do throws(PostgresError) {
            try await sites.refresh(instance: instance, isStillBusy: self.isDraining ? isStillBusy : nil)
        } catch {
            self.logger.log(
                .warning, cause: "runtime.sites", "[SAGA] can't tell others which sites are served here: \(error)")
        }
    }

    /// Sagas that sleep, and those under way that no live instance can go on with; `nil`: nobody knows.
    private func waitingCounts() async -> (asleep: Int, unserved: Int)? {
        guard let row = try? await self.pool.run(SQLQuery(SagaSleepers.count)).single(),
            let asleep = try? row.int64(0), var unserved = try? row.int64(1)
        else { return nil }
        for group in self.sites == nil ? [] : SagaLeafGroup.groups(of: self.days.open()) {
            let statement = self.statements.statement("sites_unserved", over: group, Sites.unserved)
            guard let rows = try? await self.pool.run(SQLQuery(statement)), let some = try? rows.single().int64(0)
            else { return nil }
            unserved += some
        }
        return (Int(asleep), Int(unserved))
    }

    /// Sagas of the whole cluster that are under way, asleep ones too, by type; a type without any is left out. `nil`: nobody knows.
    public func unfinished() async -> [String: UnfinishedSagas]? {
        var sagas: [String: UnfinishedSagas] = [:]
        for group in SagaLeafGroup.groups(of: self.days.open()) {
            let statement = self.statements.statement("saga_unfinished", over: group, UnfinishedSagas.query)
            guard let rows = try? await self.pool.run(SQLQuery(statement)) else { return nil }
            for row in rows {
                guard let type = try? row.text(0), let count = try? row.int64(1), let age = try? row.int64(2) else {
                    return nil
                }
                var all = sagas[type] ?? UnfinishedSagas(count: 0, age: .zero)
                all.count += Int(count)
                all.age = max(all.age, .microseconds(age))
                sagas[type] = all
            }
        }
        return sagas
    }

    /// What this process may do at a dependency of calls, now; `nil`: nobody limits it.
    public func share(of dependency: String) -> CallLimits? { self.share(dependency) }

    /// The same, for the parts of an incarnation, which must not hold on to this.
    private var share: @Sendable (_ dependency: String) -> CallLimits? {
        { [sites, callLimits = self.configuration.callLimits] dependency in
            callLimits(dependency).map { sites?.share(of: $0.limits, at: $0.site) ?? $0.limits }
        }
    }

    /// Whether this process has a share of a site's calls.
    private var mayCall: @Sendable (_ site: String) -> Bool {
        { [share, dependencyOfSite = self.configuration.dependencyOfSite] site in
            dependencyOfSite(site).flatMap { share($0)?.concurrency }.map { $0 > 0 } ?? true
        }
    }

    /// What a new saga of a user is to expect here of a dependency's calls; `nil`: nobody knows.
    public func outlook(_ dependency: String, user: String) -> CallOutlook? {
        self.shared.current?.worker.outlook(dependency, user: user)
    }

    /// Whether calls to a dependency are held back because it is down.
    public func isDown(_ dependency: String) -> Bool { self.shared.current?.worker.isDown(dependency) ?? false }

    /// The site that a saga's calls go to; empty: it has none (yet).
    public func site(of snapshot: SagaSnapshot) -> String {
        self.registry[snapshot.type, snapshot.definitionVersion]?.site(snapshot.request, snapshot.outputs) ?? ""
    }

    /// Whether some live instance can call a site, as was seen a second or so ago.
    public func isServed(_ site: String) -> Bool { self.sites?.isServed(site) ?? false }

    private func parkedCount() async -> Int? {
        var count: Int64 = 0
        for group in SagaLeafGroup.groups(of: self.days.open()) {
            let statement = self.statements.statement("saga_count_parked", over: group) { group in
                let counts = group.leaves.map { "(SELECT count(*) FROM \($0.state) WHERE status = 'PARKED')" }
                return "SELECT " + counts.joined(separator: " + ")
            }
            guard let rows = try? await self.pool.run(SQLQuery(statement)), let some = try? rows.single().int64(0)
            else { return nil }
            count += some
        }
        return Int(count)
    }

    // MARK: State of service

    /// Whether new sagas can be taken: the database answers, the lease is trusted, partitions exist, not draining.
    public var isServing: Bool { self.problems.isEmpty }

    /// Has no sagas taken up or woken: new ones are started and driven all the same.
    ///
    /// - Parameter reason: for people; `nil`: they are taken up from now on.
    public func holdAdoption(_ reason: String?) { self.shared.state.withLock { $0.adoptionHold = reason } }

    /// Why no sagas are taken up; `nil`: they are.
    public var adoptionHold: String? { self.shared.state.withLock { $0.adoptionHold } }

    /// Tells whether the database answers, so that new sagas are refused at once while it does not; `nil`: it does.
    public func setDatabaseProblem(_ problem: String?) { self.shared.state.withLock { $0.databaseProblem = problem } }

    /// Why not, in words; for `/readyz`.
    public var problems: [String] {
        var problems: [String] = []
        if self.isDraining { problems.append("draining") }
        guard let current = self.shared.current else { return problems + ["no registered instance"] }
        if current.lease.isFenced {
            problems.append("fenced")
        } else if !current.lease.isTrusted {
            problems.append("the lease is not renewed")
        }
        if current.journal.isStuck { problems.append(Self.takesNothing) }
        if self.partitions.daysAhead < 1 { problems.append("no partitions ahead") }
        return problems
    }

    private static let takesNothing = "the database takes no records"

    // MARK: Sagas

    /// A new id, by the database's clock.
    public func mintID() -> SagaID {
        let now = self.clock.now().milliseconds
        return self.shared.state.withLock { SagaID(milliseconds: now, using: &$0.generator) }
    }

    /// The database's clock, as this process tracks it.
    public var now: Timestamp { self.clock.now() }

    /// Starts a saga, or finds the one that the same request started before, and waits until it has come as far as
    /// `milestone` (or is over). A caller that goes away does not stop it, once its first flush has left; until then it is
    /// withdrawn.
    public func start(_ new: NewSaga, until milestone: Milestone) async throws -> (Submission, SagaSnapshot) {
        guard let definition = self.registry.newest(new.type, knowing: self.isKnownByAll) else {
            if self.registry.newest(new.type) == nil { throw SagaRuntimeError.unknownType(new.type) }
            throw SagaRuntimeError.unknownToOthers(new.type)
        }
        let current = try self.admit(new.userID)
        let (outcome, handle) = await current.worker.create(new, definition: definition)
        switch outcome {
        case .committed:
            if let snapshot = await handle.wait(until: milestone) { return (.started(new.id), snapshot) }
            try Task.checkCancellation()
            return (.started(new.id), try await self.waitForKnown(new.id, until: milestone))
        case .duplicate:
            let id = try await self.original(of: new)
            return (.duplicate(id), try await self.waitForKnown(id, until: milestone))
        case .fenced:
            // Others own what this instance wrote last, if its flush was lost and committed all the same.
            throw self.isDraining ? SagaRuntimeError.shuttingDown : .mayHaveStarted(new.id)
        case .withdrawn, .late:
            // Unless it is the caller who has gone.
            try Task.checkCancellation()
            throw SagaRuntimeError.databaseUnavailable(Self.takesNothing)
        case .unknown, .commanded:
            throw SagaRuntimeError.mayHaveStarted(new.id)
        case .rejected(let error):
            throw SagaRuntimeError.refused(error.message)
        case .overloaded:
            // It has waited until its deadline: the next one is to come when it can be begun at once.
            let wait = new.firstDependency.flatMap { self.outlook($0, user: new.userID)?.wait }
            guard let wait, wait > .zero else { throw self.overloaded }
            throw SagaRuntimeError.overloaded(retryAfter: wait)
        }
    }

    /// Whether all live instances know a feature that new sagas need.
    private func isKnownByAll(_ feature: String) -> Bool { self.features.isOn(ClusterFeature(stringLiteral: feature)) }

    private var overloaded: SagaRuntimeError {
        .overloaded(retryAfter: .milliseconds(self.surroundings.integer(in: 200...1000)))
    }

    private func admit(_ userID: String) throws(SagaRuntimeError) -> Incarnation {
        if self.isDraining { throw .shuttingDown }
        guard let current = self.shared.current else { throw .databaseUnavailable("no registered instance") }
        guard current.lease.isTrusted else { throw .databaseUnavailable("the lease is not renewed") }
        if let problem = self.shared.state.withLock({ $0.databaseProblem }) { throw .databaseUnavailable(problem) }
        guard !current.journal.isStuck else { throw .databaseUnavailable(Self.takesNothing) }
        guard self.partitions.daysAhead >= 1 else { throw .databaseUnavailable("no partitions ahead") }
        guard current.worker.count < self.configuration.maximumInFlight,
            current.worker.count(of: userID) < self.configuration.maximumInFlightPerUser
        else { throw self.overloaded }
        return current
    }

    private static let originalRequest = SQLStatement(
        "saga_original_request",
        "SELECT saga_id, digest FROM saga_request WHERE user_id = $1 AND request_id = $2 AND method = $3")

    /// The saga of a request that came before. A new statement: the flush's own snapshot may predate it.
    private func original(of new: NewSaga) async throws(SagaRuntimeError) -> SagaID {
        var parameters = SQLParameters()
        parameters.append(new.userID)
        parameters.append(new.requestID)
        parameters.append(Int16(clamping: new.method))
        do {
            let rows = try await self.pool.run([SQLQuery(Self.originalRequest, parameters)])[0]
            // Retention has taken it since: the same request starts a new saga.
            guard let row = rows.first else {
                throw SagaRuntimeError.databaseUnavailable("what this request started has just been removed")
            }
            guard let id = SagaID(try row.text(0)) else { throw SagaRuntimeError.notFound }
            guard try row.bytes(1) == new.requestDigest else { throw SagaRuntimeError.requestIDReused(id) }
            return id
        } catch let error as PostgresError {
            throw .database(error)
        } catch let error as SagaRuntimeError {
            throw error
        } catch {
            throw .databaseUnavailable("\(error)")
        }
    }

    /// As `wait`, for a saga that is known to be durable: an error says which.
    private func waitForKnown(_ id: SagaID, until milestone: Milestone) async throws -> SagaSnapshot {
        do {
            return try await self.wait(for: id, until: milestone)
        } catch let error as SagaRuntimeError {
            throw SagaRuntimeError.interrupted(id, error)
        } catch let error as PostgresError {
            throw SagaRuntimeError.interrupted(id, .database(error))
        }
    }

    /// Waits until a saga has come as far as `milestone`, whichever replica drives it.
    public func wait(for id: SagaID, until milestone: Milestone) async throws -> SagaSnapshot {
        while true {
            if let handle = self.shared.current?.worker.handle(id), let snapshot = await handle.wait(until: milestone) {
                return snapshot
            }
            try Task.checkCancellation()
            guard let history = try await self.reader.history(id) else { throw SagaRuntimeError.notFound }
            let provisionedStep =
                self.plans[history.snapshot.type, history.snapshot.definitionVersion]?.provisionedStep ?? 0
            if history.snapshot.hasReached(milestone, provisionedStep: provisionedStep) { return history.snapshot }
            // News first, then a look at the whole: a watcher's cursor does the waiting.
            for try await _ in self.follow(id, after: UInt32(history.events.count)) { break }
        }
    }

    /// Gives a saga a command, durably; whoever drives it consumes it.
    ///
    /// - Parameters:
    ///   - issuer: who wishes it.
    ///   - reason: why; up to 1,000 characters.
    /// - Returns: false: the saga is over.
    /// - Throws: `notFound`, `database`, `databaseUnavailable` while an older program runs beside this one.
    public func command(
        _ kind: SagaCommand.Kind, to id: SagaID, by issuer: String, reason: String
    ) async throws(SagaRuntimeError) -> Bool {
        try await self.issue(kind, to: id, by: issuer, reason: reason, sequence: nil) != nil
    }

    /// The same, and waits until the command is consumed.
    ///
    /// - Parameters:
    ///   - sequence: of the newest event that its issuer knows of: a resume or skip is meant for the saga as it was then.
    ///   - limit: how long it waits at most. The command stands, whoever waits for it.
    /// - Throws: as `command`; `CancellationError`.
    public func command(
        _ kind: SagaCommand.Kind, to id: SagaID, by issuer: String, reason: String, sequence: Int,
        within limit: Duration
    ) async throws -> CommandOutcome {
        let end = self.surroundings.now + limit
        guard let command = try await self.issue(kind, to: id, by: issuer, reason: reason, sequence: sequence) else {
            return .over
        }
        var pause = Duration.milliseconds(10)
        while self.surroundings.now < end, !self.isDraining {
            try await self.surroundings.sleep(for: min(pause, end - self.surroundings.now))
            // A database that is away has not lost it.
            if let result = try? await self.commands.result(of: command) { return .consumed(result) }
            pause = min(pause * 2, .milliseconds(200))
        }
        return .pending
    }

    /// - Returns: the command's number; `nil`: the saga is over.
    private func issue(
        _ kind: SagaCommand.Kind, to id: SagaID, by issuer: String, reason: String, sequence: Int?
    ) async throws(SagaRuntimeError) -> Int64? {
        guard self.features.isOn(.commands) else {
            throw .databaseUnavailable("not all live servers know commands yet")
        }
        do throws(PostgresError) {
            switch try await self.commands.issue(kind, to: id, by: issuer, reason: reason, sequence: sequence) {
            case .accepted(let command): return command
            case .tooLate: return nil
            case .notFound: break
            }
        } catch {
            throw .database(error)
        }
        throw .notFound
    }

    /// What an operator may command a saga to do, of what would have an effect on it as it is; the least drastic first.
    public func helpfulCommands(_ snapshot: SagaSnapshot) -> [SagaCommand.Kind] {
        guard !snapshot.isOutline, let definition = self.registry[snapshot.type, snapshot.definitionVersion] else {
            // Whether it can be undone, or a step be skipped, only those know who can read it.
            return snapshot.isQuarantined || snapshot.status == .parked ? [.resume] : []
        }
        return definition.helpfulCommands(snapshot)
    }

    /// Whether a saga was given commands that are not consumed.
    public func hasCommands(_ id: SagaID) async throws(SagaRuntimeError) -> Bool {
        do throws(PostgresError) {
            return try await self.commands.open(of: [id])[id] != nil
        } catch {
            throw .database(error)
        }
    }

    /// Follows a saga's events after a sequence; a saga outside of `visibility` is not found.
    public func follow(_ id: SagaID, after: UInt32, visibility: Visibility = .all) -> SagaFollower {
        SagaFollower(visibility: visibility, id: id, after: after, feed: self.feed, reader: self.reader)
    }

    /// One saga as its events tell it; concurrent calls share queries. `nil`: unknown. One whose events can't be read: as
    /// its row tells it (`SagaSnapshot.isOutline`).
    public func snapshot(_ id: SagaID) async throws(SagaRuntimeError) -> SagaSnapshot? {
        do throws(SagaRuntimeError) {
            return try await self.reader.snapshot(id)
        } catch {
            guard case .unreadable(let problem) = error else { throw error }
            return try await self.outlines([id: problem])[id]
        }
    }

    /// The known ones of `ids`; one whose events can't be read does not spoil the others.
    ///
    /// - Parameter deadline: of the call that they are read for; PostgreSQL gives up then.
    public func snapshots(
        _ ids: [SagaID], until deadline: ContinuousClock.Instant? = nil
    ) async throws(SagaRuntimeError) -> [SagaID: SagaSnapshot] {
        let (snapshots, unreadable) = try await self.reader.snapshots(ids, until: deadline)
        if unreadable.isEmpty { return snapshots }
        return try await self.outlines(unreadable).merging(snapshots) { $1 }
    }

    /// What the rows say of sagas whose events this binary can't read.
    private func outlines(_ problems: [SagaID: String]) async throws(SagaRuntimeError) -> [SagaID: SagaSnapshot] {
        for (id, problem) in problems {
            self.observer.sagaUnreadable()
            self.logger.log(
                .error, cause: "runtime.unreadable", "[SAGA] its events can't be read",
                metadata: ["saga_id": "\(id)", "error": "\(problem)"])
        }
        return try await self.reader.outlines(Array(problems.keys))
    }

    /// Sagas newest first; see `SagaFilter`. Fewer than `limit` if few of many that were looked at match; `SagaPage.next` tells
    /// where to go on.
    ///
    /// - Parameter deadline: of the call that they are read for; PostgreSQL gives up then.
    public func list(
        _ filter: SagaFilter, before: SagaID?, limit: Int, until deadline: ContinuousClock.Instant? = nil
    ) async throws(SagaRuntimeError) -> SagaPage {
        let page = try await self.ids(filter, before: before, limit: limit, until: deadline)
        let snapshots = try await self.snapshots(page.ids, until: deadline)
        return SagaPage(sagas: page.ids.compactMap { snapshots[$0] }, next: page.next)
    }

    /// The first saga of each of these resources that has one: what made it.
    ///
    /// - Parameter resources: UUID texts in lower case.
    public func firstSagas(
        of resources: [String], until deadline: ContinuousClock.Instant? = nil
    ) async throws(SagaRuntimeError) -> [String: SagaSnapshot] {
        var parameters = SQLParameters()
        parameters.appendUUIDs(resources)
        var ids: [String: SagaID] = [:]
        do {
            for row in try await self.pool.run(SQLQuery(Self.firstSagas, parameters), until: deadline) {
                ids[try row.uuid(0)] = SagaID(try row.text(1))
            }
        } catch {
            throw .database(error)
        }
        let snapshots = try await self.snapshots(Array(ids.values), until: deadline)
        return ids.compactMapValues { snapshots[$0] }
    }

    private static let firstSagas = SQLStatement(
        "saga_first",
        """
        SELECT i.resource_id, f.saga_id
        FROM unnest($1::uuid[]) AS i(resource_id)
        CROSS JOIN LATERAL (
            SELECT min(e.saga_id) AS saga_id FROM saga_event e WHERE e.resource_id = i.resource_id OFFSET 0) f
        WHERE f.saga_id IS NOT NULL
        """)

    /// The same as `list`, without reading the sagas.
    public func ids(
        _ filter: SagaFilter, before: SagaID?, limit: Int, until deadline: ContinuousClock.Instant? = nil
    ) async throws(SagaRuntimeError) -> SagaIDPage {
        try await SagaList(pool: self.pool, days: self.days, statements: self.statements)
            .page(filter, before: before, limit: limit, until: deadline)
    }

    private static let digestKey = SQLStatement(
        "saga_digest_key", "SELECT value FROM saga_setting WHERE name = 'request-digest-key'")

    /// The key of the request digests, the same on all replicas.
    public func requestDigestKey() async throws(PostgresError) -> [UInt8] {
        try await self.pool.run(SQLQuery(Self.digestKey)).single().bytes(0)
    }
}
