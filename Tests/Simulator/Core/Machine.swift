@testable import SagaRuntime

/// The machine around one life of a replica: its clock, its sleep, its chance, its connections.
///
/// Everything that reaches the replica comes through `deliver`. Once the machine is dead nothing comes any more: its tasks
/// wait for ever for what they asked for, as if they had been killed. While it is frozen, everything waits until it goes on.
///
/// Unchecked: of one thread.
final class Machine: Simulation, @unchecked Sendable {
    enum Life { case running, frozen, dead }

    /// e.g. `r1#2`: the second life of replica 1.
    let name: String
    private(set) var life = Life.running
    private let scheduler = Scheduler.shared
    private let history: History
    private let database: Database
    private var chance: Chance
    /// What the machine's clock said when the run began: no two machines agree.
    private let boot: Int64
    /// What arrives while it is frozen.
    private var late: [() -> Void] = []
    private var mourners: [() -> Void] = []
    /// When it last went on after having been frozen: others may have taken it for dead meanwhile.
    private(set) var lastFrozen: Int64?

    init(name: String, seed: UInt64, history: History, database: Database) {
        self.name = name
        self.history = history
        self.database = database
        self.chance = Chance(seed: seed, stream: "machine \(name)")
        self.boot = Int64(self.chance.next() % 1_000_000_000_000_000)
    }

    // MARK: What the engine asks

    var now: BootTime { BootTime(nanoseconds: self.boot + self.scheduler.now) }

    func random() -> UInt64 { self.chance.next() }

    func sleep(for duration: Duration) async throws {
        let nap = Nap(self)
        try await withTaskCancellationHandler {
            try await withUnsafeThrowingContinuation { continuation in
                guard nap.begin(continuation) else { return }
                // Nobody wakes up to the nanosecond.
                self.deliver(after: duration + self.chance.milliseconds(0, 1)) { nap.end() }
            }
        } onCancel: {
            nap.cancel()
        }
    }

    /// Unchecked: of one thread.
    private final class Nap: @unchecked Sendable {
        private let machine: Machine
        private var continuation: UnsafeContinuation<Void, any Error>?
        private var isCancelled = false

        init(_ machine: Machine) { self.machine = machine }

        func begin(_ continuation: UnsafeContinuation<Void, any Error>) -> Bool {
            if self.isCancelled {
                continuation.resume(throwing: CancellationError())
                return false
            }
            self.continuation = continuation
            return true
        }

        func end() {
            self.continuation?.resume()
            self.continuation = nil
        }

        func cancel() {
            self.isCancelled = true
            guard self.machine.life != .dead else { return }
            self.continuation?.resume(throwing: CancellationError())
            self.continuation = nil
        }
    }

    func connect(_ configuration: PostgresConfiguration) async -> Result<any SimulatedSession, PostgresError> {
        await withUnsafeContinuation { continuation in
            guard self.life != .dead else { return }
            self.database.connect(self, configuration) { result in continuation.resume(returning: result) }
        }
    }

    // MARK: What reaches it

    /// Does something at this machine after a while, or never.
    func deliver(after delay: Duration, _ action: @escaping () -> Void) {
        self.scheduler.after(delay) {
            switch self.life {
            case .running: action()
            case .frozen: self.late.append(action)
            case .dead: break
            }
        }
    }

    /// Told when this machine dies.
    func onDeath(_ action: @escaping () -> Void) {
        if self.life == .dead { action() } else { self.mourners.append(action) }
    }

    func kill() {
        guard self.life != .dead else { return }
        self.history.note(self.name, "KILLED")
        self.life = .dead
        self.late = []
        for mourner in self.mourners { mourner() }
        self.mourners = []
    }

    /// Its process has ended by itself: nothing of it is left to be told anything.
    func end() {
        guard self.life != .dead else { return }
        self.life = .dead
        for mourner in self.mourners { mourner() }
        self.mourners = []
    }

    func freeze(for duration: Duration) {
        guard self.life == .running else { return }
        self.history.note(self.name, "FROZEN for \(duration)")
        self.life = .frozen
        self.scheduler.after(duration) {
            guard self.life == .frozen else { return }
            self.lastFrozen = self.scheduler.now
            self.history.note(self.name, "GOES ON")
            self.life = .running
            // All of it is there at once; what comes first is anybody's guess.
            var late = self.late
            self.late = []
            while !late.isEmpty { late.remove(at: self.chance.index(below: late.count))() }
        }
    }
}
