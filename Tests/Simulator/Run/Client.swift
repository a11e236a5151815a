@testable import SagaRuntime

/// Somebody who wants one saga, asks until it is acknowledged, and watches it to its end. Lives through every death.
///
/// Unchecked: of one thread.
final class Client: @unchecked Sendable {
    let number: Int
    private let world: World
    private let requestID: String
    private var attempts = 0
    /// The id that a replica vouched for.
    private(set) var acknowledged: String?
    /// Ids of which a replica said that there is no such saga and never will be.
    private(set) var refused: [String] = []
    /// Without a request id, a call that died leaves this client with nothing to ask for.
    private(set) var hasGivenUp = false
    /// A replica may be at it.
    private(set) var isAsking = false
    private(set) var watched: [SagaEvent] = []
    private(set) var hasSeenEnd = false
    private(set) var problems: [String] = []

    init(number: Int, world: World) {
        self.number = number
        self.world = world
        self.requestID = world.happens(0.7) ? "request-\(number)" : ""
    }

    /// Sometimes too short.
    private var timeout: Duration {
        if self.world.plan.theme == .queue { return .seconds(120) }
        return self.world.happens(self.world.plan.shortDeadlines)
            ? self.world.pause(self.world.plan.theme == .doubt ? 500 : 1500, 6000) : self.world.pause(15_000, 60_000)
    }

    var isDone: Bool { self.hasGivenUp || self.hasSeenEnd }
    private var name: String { "c\(self.number)" }

    func begin() {
        Task {
            await self.ask()
            if self.acknowledged != nil { await self.watch() }
        }
    }

    // MARK: Asking

    private func ask() async {
        while true {
            guard let replica = self.world.anyReplica(), let runtime = replica.runtime, let machine = replica.machine
            else {
                await self.world.sleep(self.world.pause(200, 1000))
                continue
            }
            var new = NewSaga(
                id: runtime.mintID(), type: SimulatedSaga.type, userID: "user-\(self.number % 3)",
                resourceID: "00000000-0000-0000-0000-0000000000\(10 + self.number)", requestID: self.requestID,
                method: 1, requestDigest: [UInt8(self.number)], batchID: "", request: [UInt8(self.number)],
                secrets: self.number % 2 == 0 ? [1] : [], timeout: self.timeout)
            if self.world.plan.traits.sites.count > 1 {
                let served = replica.served.sorted()
                guard !served.isEmpty else {
                    await self.world.sleep(self.world.pause(200, 1000))
                    continue
                }
                new.sites = [served[self.number % served.count]]
            }
            let milestone = self.world.happens(0.5) ? Milestone.accepted : .finished
            self.world.history.name(new.id.rawValue, self.number, attempt: self.attempts)
            self.attempts += 1
            self.note("asks \(machine.name) for \(new.id)")
            self.isAsking = true
            let answer = await machine.visit { [new] in try await runtime.start(new, until: milestone).0 }
            self.isAsking = false
            switch answer {
            case .returned(let submission):
                return self.isAcknowledged(submission.id)
            case .failed(let error as SagaRuntimeError):
                if case .interrupted(let id, _) = error { return self.isAcknowledged(id) }
                self.note("is told \(error)")
                if case .overloaded = error { self.world.isOverloaded(machine.name) }
                // Anything but "may have" means that it has not, and will not.
                if case .mayHaveStarted = error { break }
                self.refused.append(new.id.rawValue)
            case .failed(let error):
                self.problems.append("\(self.name) was told \(error)")
                self.hasGivenUp = true
                return
            case .died:
                self.note("hears nothing")
                if self.requestID.isEmpty {
                    self.hasGivenUp = true
                    return
                }
            }
            await self.world.sleep(self.world.pause(200, 2000))
        }
    }

    private func isAcknowledged(_ id: SagaID) {
        self.note("has \(id)")
        self.acknowledged = id.rawValue
    }

    // MARK: Watching

    private func watch() async {
        guard let id = self.acknowledged.flatMap({ SagaID($0) }) else { return }
        // What is parked may go on once it is commanded.
        while !self.hasSeenEnd || self.watched.last?.sagaStatus == .parked && self.world.givesCommands {
            guard let replica = self.world.anyReplica(), let runtime = replica.runtime, let machine = replica.machine
            else {
                await self.world.sleep(self.world.pause(200, 1000))
                continue
            }
            let post = Post(machine) { self.received($0) }
            let cursor = UInt32(self.watched.count)
            _ = await machine.visit {
                for try await events in runtime.follow(id, after: cursor) { post.send(events) }
            }
            await self.world.sleep(self.hasSeenEnd ? .seconds(2) : self.world.pause(100, 1000))
        }
    }

    private func received(_ events: [SagaEvent]) {
        for event in events {
            if Int(event.sequence) != self.watched.count + 1 {
                self.problems.append(
                    "\(self.name) saw event \(event.sequence) after \(self.watched.count) events of \(self.acknowledged ?? "")"
                )
            }
            self.watched.append(event)
            self.note(
                "sees \(event.sequence) \(event.type.name) \(event.step)\(event.reason.isEmpty ? "" : " " + event.reason)"
            )
            if !event.sagaStatus.isActive { self.hasSeenEnd = true }
        }
    }

    private func note(_ what: String) { self.world.history.note(self.name, what) }
}

/// Brings what a watcher's stream holds to the watcher, in order, as long as the machine lives.
///
/// Unchecked: of one thread.
private final class Post: @unchecked Sendable {
    private let machine: Machine
    private let receive: ([SagaEvent]) -> Void
    private var waiting: [[SagaEvent]] = []

    init(_ machine: Machine, _ receive: @escaping ([SagaEvent]) -> Void) {
        self.machine = machine
        self.receive = receive
    }

    func send(_ events: [SagaEvent]) {
        self.waiting.append(events)
        self.machine.deliver(after: .microseconds(200)) { self.receive(self.waiting.removeFirst()) }
    }
}

extension Machine {
    enum Visit<Value: Sendable>: Sendable { case returned(Value), failed(any Error), died }

    /// A call from outside: what it comes back with, unless the machine dies first.
    func visit<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async -> Visit<Value> {
        await withUnsafeContinuation { continuation in
            let once = Once(continuation)
            self.onDeath { once.end(.died) }
            Task {
                let end: Visit<Value>
                do { end = .returned(try await body()) } catch { end = .failed(error) }
                self.deliver(after: .microseconds(300)) { once.end(end) }
            }
        }
    }

    /// Unchecked: of one thread.
    private final class Once<Value: Sendable>: @unchecked Sendable {
        private var continuation: UnsafeContinuation<Visit<Value>, Never>?

        init(_ continuation: UnsafeContinuation<Visit<Value>, Never>) { self.continuation = continuation }

        func end(_ end: Visit<Value>) {
            self.continuation?.resume(returning: end)
            self.continuation = nil
        }
    }
}
