/// What surrounds the engine: time, sleep, chance and the making of connections. Everything that the engine does not decide
/// itself comes through here, so that a simulator can decide it (docs/simulator.md).
///
/// This is the only file of the engine that asks a clock, sleeps, or draws a number (scripts/check-imports). Without a
/// simulation each of these costs one branch more than the call that it stands for.
struct Surroundings: Sendable {
    private let simulation: (any Simulation)?

    /// The machine that this process runs on.
    static let real = Surroundings(nil)

    /// What a simulator makes of them.
    static func simulated(by simulation: any Simulation) -> Surroundings { Surroundings(simulation) }

    private init(_ simulation: (any Simulation)?) { self.simulation = simulation }

    // MARK: Time

    var now: BootTime {
        if let simulation = self.simulation { return simulation.now }
        return .now
    }

    /// - Throws: `CancellationError`, at once, when the task is cancelled.
    nonisolated(nonsending) func sleep(for duration: Duration) async throws {
        if let simulation = self.simulation { return try await simulation.sleep(for: duration) }
        try await Task.sleep(for: duration)
    }

    /// How much is left until a deadline that a caller brought; those are the machine's, in simulations too.
    func rest(until deadline: ContinuousClock.Instant) -> Duration { ContinuousClock.now.duration(to: deadline) }

    // MARK: Chance

    /// In 0..<1.
    func fraction() -> Double {
        var generator = self
        return Double.random(in: 0..<1, using: &generator)
    }

    func integer(in range: ClosedRange<Int64>) -> Int64 {
        var generator = self
        return Int64.random(in: range, using: &generator)
    }

    // MARK: Connections

    /// What takes the place of a connection's thread; `nil`: nothing, it has one.
    nonisolated(nonsending) func session(
        _ configuration: PostgresConfiguration
    ) async throws(PostgresError) -> (any SimulatedSession)? {
        guard let simulation = self.simulation else { return nil }
        return try await simulation.connect(configuration).get()
    }
}

extension Surroundings: RandomNumberGenerator {
    func next() -> UInt64 {
        if let simulation = self.simulation { return simulation.random() }
        var generator = SystemRandomNumberGenerator()
        return generator.next()
    }
}

/// Stands for the machine around one process. Tests/Simulator has the only one.
protocol Simulation: AnyObject, Sendable {
    var now: BootTime { get }
    /// As `Task.sleep(for:)`.
    func sleep(for duration: Duration) async throws
    func random() -> UInt64
    func connect(_ configuration: PostgresConfiguration) async -> Result<any SimulatedSession, PostgresError>
}

/// Stands for a connection's thread and libpq.
protocol SimulatedSession: AnyObject, Sendable {
    var info: LibpqSession.Info { get }
    var isOpen: Bool { get }
    /// Does what `LibpqSession` would: requests come one after the other.
    func perform(_ work: ConnectionMailbox.Work, timeout: Duration?) async -> Result<[SQLRows], PostgresError>
    func close() async
    /// Nobody holds the connection any more.
    func abandon()
}
