import Logging

@testable import SagaRuntime

/// One replica through all its lives.
///
/// Unchecked: of one thread.
final class Replica: @unchecked Sendable {
    let number: Int
    private let world: World
    private var lives = 0
    private(set) var machine: Machine?
    /// While somebody is at home.
    private(set) var runtime: SagaRuntime?
    private var isStopping = false
    /// Sites that it can't call now.
    private var unserved: [String: Int] = [:]

    init(number: Int, world: World) {
        self.number = number
        self.world = world
    }

    func start() {
        self.lives += 1
        let world = self.world
        let machine = Machine(
            name: "r\(self.number)#\(self.lives)", seed: world.seed, history: world.history, database: world.database)
        var connection = PostgresConfiguration.engine(conninfo: "simulated")
        connection.surroundings = .simulated(by: machine)
        var configuration = SagaRuntimeConfiguration(
            connection: connection, instanceName: "r\(self.number)", dataDirectory: nil)
        configuration.drainTimeout = .seconds(20)
        configuration.sleepsFrom = .milliseconds(700)
        if let most = world.plan.traits.maximumInFlight { configuration.maximumInFlight = most }
        if let limit = world.plan.traits.limit {
            configuration.callLimits = { dependency in
                dependency.hasPrefix("provider") ? (dependency, CallLimits(concurrency: limit)) : nil
            }
        }
        if world.plan.traits.sites.count > 1 {
            configuration.sites = { [unowned self] in self.served }
            configuration.dependencyOfSite = { "provider \($0)" }
        }
        let runtime = SagaRuntime(
            configuration: configuration, definitions: [SimulatedSaga.definition(self, machine, world)],
            logger: Logger(label: machine.name) { _ in HistoryLog(name: machine.name, history: world.history) })
        self.machine = machine
        self.runtime = runtime
        self.isStopping = false
        world.history.note(machine.name, "starts")
        Task {
            var end = "ends"
            do { try await runtime.run() } catch { end = "ends: \(error)" }
            guard machine.life != .dead else { return }
            world.history.note(machine.name, end)
            machine.end()
            self.isGone(machine)
        }
    }

    /// Sites that it can ever call, and those that it can call now.
    var calls: Set<String> { self.world.plan.traits.served[self.number - 1] }
    var served: Set<String> { self.calls.filter { self.unserved[$0, default: 0] == 0 } }

    func turn(_ site: String, isServed: Bool) {
        self.unserved[site, default: 0] += isServed ? -1 : 1
        self.world.history.note("r\(self.number)", "can call \(self.served.sorted().joined(separator: " "))")
    }

    func kill() {
        guard let machine = self.machine else { return }
        machine.kill()
        self.isGone(machine)
    }

    /// As a signal to terminate would; after a while, as one to kill.
    func stop() {
        guard let machine = self.machine, let runtime = self.runtime, !self.isStopping else { return }
        self.world.history.note(machine.name, "is told to stop")
        self.isStopping = true
        machine.deliver(after: .zero) { runtime.beginGracefulShutdown() }
    }

    private func isGone(_ machine: Machine) {
        guard self.machine === machine else { return }
        self.machine = nil
        self.runtime = nil
        self.world.scheduler.after(self.world.pause(100, 3000)) { self.start() }
    }
}

/// Puts a replica's log into the history.
private struct HistoryLog: LogHandler {
    let name: String
    let history: History
    var metadata = Logger.Metadata()
    var logLevel = Logger.Level.notice

    subscript(metadataKey key: String) -> Logger.MetadataValue? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let facts = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        self.history.note(self.name, ([event.level.rawValue, "\(event.message)"] + facts).joined(separator: " "))
    }
}
