@testable import SagaRuntime

/// A connection as a replica has it: its requests travel, arrive, are answered, and any of that may fail.
///
/// Unchecked: of one thread.
final class Session: SimulatedSession, @unchecked Sendable {
    let info: LibpqSession.Info
    let backend: Backend
    private let machine: Machine
    private let database: Database
    private let configuration: PostgresConfiguration
    private let scheduler = Scheduler.shared

    private struct Request {
        var number: Int
        var work: ConnectionMailbox.Work
        var timeout: Duration
        var continuation: UnsafeContinuation<Backend.Answer, Never>
    }

    private var waiting: [Request] = []
    private var current: Request?
    /// Requests so far.
    private var count = 0
    /// The server has it, and has not answered.
    private var isAtServer = false
    /// The server waits for the COMMIT.
    private var isHeldOpen = false
    private(set) var isOpen = true
    private var isServerOpen = true
    private var closers: [UnsafeContinuation<Void, Never>] = []
    private var listeners: [String: AsyncThrowingStream<String, any Error>.Continuation] = [:]

    init(
        _ machine: Machine, _ database: Database, _ configuration: PostgresConfiguration, backend: Backend, pid: Int32,
        start: Timestamp
    ) {
        self.machine = machine
        self.database = database
        self.configuration = configuration
        self.backend = backend
        self.info = LibpqSession.Info(backendPID: pid, backendStart: start, serverVersion: 150_000)
    }

    var name: String { "\(self.machine.name)/\(self.info.backendPID)" }
    var lockTimeout: Duration { self.configuration.lockTimeout }

    // MARK: The replica's end

    func perform(_ work: ConnectionMailbox.Work, timeout: Duration?) async -> Backend.Answer {
        await withUnsafeContinuation { continuation in
            guard self.machine.life != .dead else { return }
            guard self.isOpen else {
                continuation.resume(
                    returning: .failure(PostgresError(.connectionLost, "the connection was lost before")))
                return
            }
            self.count += 1
            self.waiting.append(
                Request(
                    number: self.count, work: work, timeout: timeout ?? self.configuration.requestTimeout,
                    continuation: continuation))
            self.next()
        }
    }

    func close() async {
        await withUnsafeContinuation { continuation in
            guard self.machine.life != .dead else { return }
            self.isOpen = false
            if self.current == nil {
                self.sayGoodbye()
                continuation.resume()
            } else {
                self.closers.append(continuation)
            }
        }
    }

    func abandon() {
        guard self.machine.life != .dead, self.isOpen else { return }
        self.isOpen = false
        if self.current == nil { self.sayGoodbye() }
    }

    private func sayGoodbye() {
        self.endListeners(PostgresError(.closed, "the connection is closed"))
        self.scheduler.after(.microseconds(200)) { self.serverEnds() }
    }

    private func next() {
        guard self.current == nil, !self.waiting.isEmpty else { return }
        let request = self.waiting.removeFirst()
        self.current = request
        let fate = self.database.fate(of: request.work, self.machine)
        self.machine.deliver(after: request.timeout) {
            self.lose(
                request.number,
                PostgresError(.connectionLost, "the server did not answer in time", isOutcomeUnknown: true))
        }
        if fate.isLostBefore {
            self.machine.deliver(after: fate.there) {
                self.lose(
                    request.number, PostgresError(.connectionLost, "cut on the way there", isOutcomeUnknown: true))
            }
            return
        }
        // What has left arrives, whatever becomes of the replica.
        self.scheduler.after(fate.there) { self.arrive(request, fate) }
    }

    /// At the replica: the request's end, if it has not ended before.
    private func finish(_ number: Int, _ answer: Backend.Answer) {
        guard let request = self.current, request.number == number else { return }
        self.current = nil
        request.continuation.resume(returning: answer)
        for closer in self.closers { closer.resume() }
        self.closers = []
        if self.isOpen { self.next() } else { self.sayGoodbye() }
    }

    /// At the replica: the connection is gone, and so is everything that waited for it.
    private func lose(_ number: Int, _ error: PostgresError) {
        guard self.current?.number == number else { return }
        self.isOpen = false
        let waiting = self.waiting
        self.waiting = []
        for request in waiting {
            request.continuation.resume(returning: .failure(PostgresError(error.code, error.message)))
        }
        self.endListeners(error)
        self.finish(number, .failure(error))
    }

    private func endListeners(_ error: PostgresError) {
        for channel in self.listeners.keys.sorted() { self.listeners[channel]?.finish(throwing: error) }
        self.listeners = [:]
    }

    // MARK: The server's end

    private func arrive(_ request: Request, _ fate: RequestFate) {
        guard self.isServerOpen, self.database.state != .down else {
            self.machine.deliver(after: fate.back) {
                self.lose(
                    request.number,
                    PostgresError(
                        .connectionLost, "terminating connection due to administrator command", sqlstate: "57P01",
                        isOutcomeUnknown: true))
            }
            return
        }
        let order: Backend.Order
        switch request.work {
        case .listen(let channel, let listener):
            self.listeners.updateValue(listener, forKey: channel)?.finish()
            self.machine.deliver(after: fate.back) { self.finish(request.number, .success([])) }
            return
        case .simple(let sql):
            order = .simple(sql)
        case .pipeline(let queries, let transaction):
            for query in queries { self.database.look(at: query.statement) }
            if transaction == .explicit, let hold = fate.hold {
                self.holdOpen(request, queries, for: hold, fate)
                return
            }
            order = .pipeline(queries, transaction)
        }
        self.isAtServer = true
        self.database.execute(self, request.number, order) { self.answer(request, $0, fate) }
    }

    private func answer(_ request: Request, _ answer: Backend.Answer, _ fate: RequestFate) {
        self.isAtServer = false
        self.database.note(self.name, request.work, answer, fate)
        if fate.isLostAfter {
            self.serverEnds()
            self.machine.deliver(after: fate.back) {
                self.lose(
                    request.number, PostgresError(.connectionLost, "cut on the way back", isOutcomeUnknown: true))
            }
        } else {
            self.machine.deliver(after: fate.back) { self.finish(request.number, answer) }
        }
        if self.machine.life == .dead { self.serverEnds() }
    }

    /// The last part of a pipeline, its COMMIT, stays away for a while, and the locks stay with it: the replica was stopped
    /// in the middle of sending, or the net was.
    private func holdOpen(_ request: Request, _ queries: [SQLQuery], for hold: Duration, _ fate: RequestFate) {
        _ = self.backend.run(.simple("BEGIN"))
        self.backend.isInTransaction = true
        self.isAtServer = true
        self.database.execute(self, request.number, .pipeline(queries, .implicit)) { answer in
            guard case .success = answer else {
                _ = self.backend.run(.simple("ROLLBACK"))
                self.backend.isInTransaction = false
                return self.answer(request, answer, fate)
            }
            self.database.write("waits for the COMMIT for \(hold)", self.name, isDull: false)
            self.isAtServer = false
            self.isHeldOpen = true
            if self.machine.life == .dead { return self.serverEnds() }
            self.machine.deliver(after: hold) {
                guard self.isServerOpen, self.isHeldOpen else { return }
                self.isHeldOpen = false
                self.isAtServer = true
                self.database.execute(self, request.number, .simple("COMMIT")) { committed in
                    self.backend.isInTransaction = false
                    self.answer(request, committed.flatMap { _ in answer }, fate)
                }
            }
            self.scheduler.after(self.configuration.idleInTransactionTimeout) {
                guard self.isServerOpen, self.isHeldOpen, self.current?.number == request.number else { return }
                self.database.write("was idle in its transaction for too long", self.name, isDull: false)
                self.terminate()
            }
        }
    }

    private func serverEnds() {
        guard self.isServerOpen else { return }
        self.isServerOpen = false
        self.database.disconnect(self)
    }

    /// The replica died. What the server is at, it finishes.
    func clientIsGone() {
        if !self.isAtServer { self.scheduler.after(.milliseconds(1)) { self.serverEnds() } }
    }

    /// By `pg_terminate_backend`: what it is at is rolled back.
    func terminate() {
        let wasAtServer = self.isAtServer || self.isHeldOpen
        self.isAtServer = false
        self.isHeldOpen = false
        self.serverEnds()
        self.tellOfEnd(isUnknown: wasAtServer)
    }

    /// The server stopped.
    func serverIsGone() { self.terminate() }

    private func tellOfEnd(isUnknown: Bool) {
        let number = self.current?.number
        self.machine.deliver(after: .milliseconds(1)) {
            let error = PostgresError(
                .connectionLost, "terminating connection due to administrator command", sqlstate: "57P01",
                isOutcomeUnknown: isUnknown)
            if let number, self.current?.number == number {
                if isUnknown { self.lose(number, error) }
            } else if self.current == nil {
                self.isOpen = false
                self.endListeners(error)
            }
        }
    }

    func notify(channel: String, payload: String, _ delay: Duration) {
        guard self.listeners[channel] != nil, self.isServerOpen else { return }
        self.machine.deliver(after: delay) { self.listeners[channel]?.yield(payload) }
    }
}

/// What the seed has in store for one request.
struct RequestFate {
    var there: Duration
    var back: Duration
    /// The server never sees it.
    var isLostBefore = false
    /// The server does what it says; nobody learns it.
    var isLostAfter = false
    /// For how long a transaction stays open before its COMMIT comes.
    var hold: Duration?
}
