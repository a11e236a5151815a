/// Decides what a saga does next. Pure: no sockets, no SQL, no clock, no tasks, no logs.
///
/// The state has two halves. `snapshot` is what is durable: the fold of the events that are known to be committed. The rest
/// is what this process knows beyond that, and is lost with it: what the newest call returned, and what was sent without
/// an answer (`Doubt`).
///
/// The driver asks `next(now:)`, does what it says, reports back, and asks again. Everything that happens meanwhile (the
/// deadline, an operator's command) is only looked at between a flush's return and the next one, so that there is never
/// more than one record of a saga in flight.
///
/// Going forward is in `SagaMachine+Forward`, undoing in `+Undo`, what is written in `+Records`, what is not known in `Doubt`.
struct SagaMachine: Sendable {
    enum Action: Sendable {
        /// Write this record and report with `recordWritten`.
        case write(SagaRecord)
        /// Call the other side and report with `callReturned`. It must be given up after `limit`.
        case call(StepCall, limit: Duration)
        /// Nothing to do for this long.
        case wait(Duration)
        /// Terminal or parked: nothing to do at all.
        case finished
    }

    /// A call to a remote step.
    struct StepCall: Sendable, Equatable {
        enum Kind: String, Sendable, CaseIterable { case execute, resolve, poll, compensate }
        var kind: Kind
        var step: Int
        var attempt: Int
        var generation: Int
        /// An effect of an earlier call may exist that the saga doesn't record.
        var isInDoubt: Bool
        /// This very call may have been sent before: by a process that is gone, or without an answer.
        var isRepeat = false
        /// Whom it calls is down: that it still is uses up no attempt.
        var isProbe = false
    }

    /// How a call ended.
    enum CallOutcome: Sendable {
        case succeeded(output: String)
        /// The other side has accepted, or still works on it.
        case pending(PendingJob)
        case resolved(Resolution)
        case undone(Undone)
        case failed(StepError)
        /// Given up: the deadline came, or the call took longer than its limit. Counts as unknown.
        case abandoned
        /// Given up, or failed, before any request was authorized: certainly nothing was sent, and nothing will be.
        case notSent

        static func executed(_ execution: Execution) -> CallOutcome {
            switch execution {
            case .done(let output): .succeeded(output: output)
            case .pending(let job): .pending(job)
            }
        }

        /// Of a call that failed: it certainly did nothing.
        var isDefinite: Bool {
            if case .failed(let error) = self { error.errorClass != .unknownOutcome } else { false }
        }

        /// Of a forward call: `nil` if it certainly did nothing; else what it made, where that is known.
        var mayHaveActed: String?? {
            switch self {
            case .succeeded(let output): .some(output)
            case .abandoned, .pending: .some(nil)
            case .failed(let error) where error.errorClass == .unknownOutcome: .some(nil)
            case .failed, .resolved, .undone, .notSent: nil
            }
        }
    }

    /// How a flush ended.
    enum WriteOutcome: Sendable {
        /// Committed. `databaseOutput`: what the database step granted; `nil` with `granted` false if it refused.
        case committed(granted: Bool, databaseOutput: String?)
        /// The database won't have this record (SQLSTATE class 22, 23, …): its step fails with a fixed error.
        case rejected(StepError)
    }

    /// What this process has in hand of the current forward step.
    enum Position: Sendable {
        /// Nothing: what comes next follows from the snapshot and the step's doubt.
        case idle
        /// The same call may be made again at once, though an earlier one is in doubt.
        case repeatable
        /// A forward call came back with this.
        case returned(Result<String, StepError>)
        /// The other side works on it; this is not recorded yet.
        case progressed(PendingJob)
        /// The database refused the record. `output`: the call's result in it, where a database step of the same record
        /// may be to blame: it is tried without that step first.
        case rejected(StepError, output: String?)
    }

    let definition: SagaDefinition
    private(set) var snapshot: SagaSnapshot
    private(set) var version: Int
    private(set) var adoptions: Int
    var position = Position.idle
    /// What went out and was not answered.
    var unanswered: [StepSide: UnansweredCalls] = [:]
    /// When the next attempt of a side may start, where that is later than at once.
    var due: [StepSide: BootTime] = [:]
    /// What is waited for until then.
    var waits: [StepSide: SagaWait] = [:]
    /// Commands that were given and are not consumed, in the order in which they came.
    var commands: [SagaCommand] = []
    /// The newest that was ever received.
    var newestCommand: Int64 = 0
    /// Questions about the current step that got no answer, in a row.
    var questionsAsked = 0
    /// Why the newest call ended without a definite answer.
    var unansweredReason = "it was not answered"
    /// Undos that ended, not recorded yet.
    var undone: Set<Int> = []
    /// Why the success that the current step's call returned is merely taken for one; and of undos that ended.
    var assumption: StepError?
    var undoAssumptions: [Int: StepError] = [:]
    var undoErrors: [Int: StepError] = [:]
    private var birth: NewSaga?
    private var announceAdoption = false
    private var isPoisoned = false
    /// It was claimed with intents that are unsent, which holds at that version alone.
    private var needsTouch = false
    let random: @Sendable () -> Double
    /// Secrets say nothing to the machine, but the settle time may depend on options.
    private let secrets: [UInt8]

    /// A new saga: its first action is to write flush 1.
    init(
        definition: SagaDefinition, new: NewSaga, now: Timestamp, random: @escaping @Sendable () -> Double
    ) {
        self.definition = definition
        self.birth = new
        self.secrets = new.secrets
        self.version = 0
        self.adoptions = 0
        self.random = random
        self.snapshot = SagaSnapshot(
            id: new.id, birth: Self.birth(of: new, definition: definition, now: now), userID: new.userID,
            tenantID: new.tenantID, resourceID: new.resourceID, batchID: new.batchID, time: now,
            stepNames: definition.steps.map(\.name))
    }

    /// A saga taken up from its rows.
    ///
    /// - Parameters:
    ///   - adoptions: how often it was taken up without progress, this time included.
    ///   - isPoisoned: it was taken up too often: park it.
    ///   - isUnsent: whoever gave it back, or put it to sleep, said that its intents are unsent.
    ///   - slept: how the one that slept was woken; `nil`: it was not asleep.
    init(
        definition: SagaDefinition, snapshot: SagaSnapshot, version: Int, adoptions: Int, isPoisoned: Bool,
        isUnsent: Bool, slept: Awakening? = nil, secrets: [UInt8], now: Moment,
        random: @escaping @Sendable () -> Double
    ) {
        self.definition = definition
        self.snapshot = snapshot
        self.version = version
        self.adoptions = adoptions
        self.isPoisoned = isPoisoned
        self.announceAdoption = slept == nil
        self.needsTouch =
            slept != nil && isUnsent && snapshot.steps.contains { $0.doubt == .intent || $0.undoDoubt == .intent }
        self.secrets = secrets
        self.random = random
        self.inheritDoubt(isUnsent: isUnsent, now: now, until: slept?.doubtUntil)
        for index in snapshot.steps.indices {
            let step = snapshot.steps[index]
            let side = StepSide(step: index, isUndo: snapshot.status == .compensating)
            guard let next = step.retryAt ?? (side.isUndo ? nil : step.pollAt) else { continue }
            // Whom it waited for is there again: the back-off was for that.
            if let dependency = slept?.dependency, dependency == self.dependency(ofStep: index) { continue }
            // No longer than it was when it was written, whatever the database's clock has done since.
            let rest = min(next - now.time, next - snapshot.updatedAt)
            self.postpone(
                side, until: now.uptime + max(rest, .zero), SagaWait(reason: step.isPending ? .job : .backOff))
        }
    }

    /// How a saga that slept was woken.
    struct Awakening: Sendable {
        /// The last instant at which a call without an answer may have gone out; `nil`: it can't be told any more.
        var doubtUntil: BootTime?
        /// The dependency that it was woken for, which may be there again; `nil`: it was due, or given a command.
        var dependency: String?
    }

    static func birth(of new: NewSaga, definition: SagaDefinition, now: Timestamp) -> SagaBirth {
        SagaBirth(
            type: new.type, definitionVersion: definition.version, deadline: now + new.timeout,
            requestID: new.requestID, request: new.request, hasSecrets: !new.secrets.isEmpty)
    }

    // MARK: What next

    /// Asking twice gives the same answer.
    func next(now: Moment) -> Action {
        if let birth = self.birth { return .write(self.firstRecord(birth, now: now.time)) }
        switch self.snapshot.status {
        case .completed, .compensated:
            return .finished
        case .parked:
            guard let command = self.commands.first else { return .finished }
            return .write(self.commandRecord(command, now: now.time))
        case .running, .compensating:
            break
        }
        if self.isPoisoned {
            return .write(self.parkRecord(Self.poison(self.adoptions), now: now.time))
        }
        if self.announceAdoption {
            return .write(self.record(kind: .adopt, now: now.time) { $0.emit(.sagaAdopted) })
        }
        if self.needsTouch { return .write(self.record(kind: .wake, now: now.time) { _ in }) }
        return self.snapshot.status == .running ? self.nextForward(now: now) : self.nextUndo(now: now)
    }

    private static func poison(_ adoptions: Int) -> StepError {
        StepError(
            .undecidable, reason: "POISON",
            message: "taken up \(adoptions) times without progress; it may crash its server")
    }

    // MARK: What came back

    /// A call ended.
    ///
    /// - Parameters:
    ///   - asked: when it was sent, at the earliest. What it found is as old as that.
    ///   - now: when it ended: when it was sent, at the latest.
    mutating func callReturned(_ call: StepCall, _ outcome: CallOutcome, asked: Moment, now: Moment) {
        let asked = Mutant.answersCountWhenTheyCome.isActive ? now : asked
        switch call.kind {
        case .execute: self.executed(call, outcome, asked: asked, now: now)
        case .resolve: self.resolved(call, outcome, asked: asked, now: now)
        case .poll: self.polled(call, outcome, now: now)
        case .compensate: self.compensated(call, outcome, asked: asked, now: now)
        }
    }

    /// The call that is due must not go out for a while, since its dependency is down. Nothing durable: no attempt is used
    /// up. What doesn't depend on it goes on.
    ///
    /// - Parameter isLong: nobody knows for how long.
    mutating func postpone(_ call: StepCall, by pause: Duration, for dependency: String, isLong: Bool, now: Moment) {
        self.postpone(
            StepSide(step: call.step, isUndo: call.kind == .compensate), until: now.uptime + pause,
            SagaWait(reason: .breakerOpen, dependency: dependency, until: isLong ? nil : now.time + pause))
    }

    /// Nothing of this side happens before `instant`.
    mutating func postpone(_ side: StepSide, until instant: BootTime, _ wait: SagaWait) {
        self.due[side] = instant
        self.waits[side] = wait
    }

    /// A call that got no answer, or was not sent, and is no attempt: it is made again after a moment.
    mutating func askAgain(_ call: StepCall, now: Moment, atLeast: Duration? = nil) {
        self.questionsAsked += 1
        self.postpone(
            StepSide(step: call.step, isUndo: call.kind == .compensate),
            until: now.uptime + max(self.questionDelay, atLeast ?? .zero), SagaWait(reason: .backOff))
    }

    /// Between questions after an unknown outcome, and between calls that could not be sent.
    var questionDelay: Duration {
        RetryPolicy.question.delay(
            afterAttempt: self.questionsAsked, random: self.random(), atLeast: .milliseconds(50))
    }

    /// A call came back, and this process lives: the saga has not killed it. Whatever is written next says so.
    mutating func survived() { if !Mutant.waitingIsNoProgress.isActive { self.adoptions = 0 } }

    // MARK: What was written

    mutating func recordWritten(_ record: SagaRecord, _ outcome: WriteOutcome, now: Moment) -> [SagaEvent] {
        self.birth = nil
        switch outcome {
        case .rejected(let error):
            var output: String?
            if record.databaseStep != nil, case .returned(.success(let result)) = self.position { output = result }
            self.position = .rejected(error, output: output)
            return []
        case .committed(let granted, let databaseOutput):
            self.version = record.expectedVersion + 1
            self.adoptions = record.adoptions
            self.announceAdoption = false
            self.needsTouch = false
            self.isPoisoned = false
            self.questionsAsked = 0
            switch record.kind {
            case .adopt, .wake, .sleep: break
            case .create, .forward, .intent, .retry, .undo, .end, .park, .progress, .command:
                self.position = .idle
                self.assumption = nil
            }
            return self.apply(record.written(granted: granted).events, databaseOutput: databaseOutput, now: now)
        }
    }

    private mutating func apply(_ written: [JournalEvent], databaseOutput: String?, now: Moment) -> [SagaEvent] {
        var events: [SagaEvent] = []
        events.reserveCapacity(written.count)
        for event in written {
            let generation = event.step.map { self.snapshot.steps[$0].generation } ?? 0
            let isUndo = self.snapshot.status == .compensating
            guard let seen = try? self.snapshot.apply(event, databaseOutput: databaseOutput) else { continue }
            events.append(seen)
            self.follow(event, generationBefore: generation, now: now)
            if event.type == .commandReceived, !self.commands.isEmpty { self.commands.removeFirst() }
            if event.type == .sagaResumed || event.type == .commandReceived && !event.flags.contains(.noEffect) {
                self.due = [:]
            }
            guard let step = event.step else { continue }
            if isUndo {
                self.undone.remove(step)
                self.undoAssumptions[step] = nil
                self.undoErrors[step] = nil
            }
            let side = StepSide(step: step, isUndo: isUndo)
            self.due[side] = event.retryAt.map { now.uptime + ($0 - event.time) }
            self.waits[side] = SagaWait(reason: event.type == .stepProgress ? .job : .backOff)
            // Its back-off over, the same call goes out again: its outcome was asked about before this was written.
            if event.type == .stepRetrying, !isUndo, self.doubt(side).isSent { self.position = .repeatable }
        }
        return events
    }

    // MARK: What the driver asks about a call

    /// How long after its end its effect may still appear.
    func settleTime(step: Int) -> Duration {
        guard case .remote(let remote) = self.definition.steps[step].action else { return .zero }
        return remote.settleTime(request: self.snapshot.request, secrets: self.secrets)
    }

    /// The longest that it takes.
    func callLimit(of call: StepCall) -> Duration { self.definition.steps[call.step].callLimit }

    /// The longest that any call of this saga takes.
    var longestCall: Duration { self.definition.steps.map(\.callLimit).max() ?? .zero }

    /// Whom it calls.
    func dependency(of call: StepCall) -> String { self.dependency(ofStep: call.step) }

    private func dependency(ofStep index: Int) -> String {
        let step = self.definition.steps[index]
        guard case .remote(let remote) = step.action else { return step.name }
        return remote.dependency(request: self.snapshot.request, outputs: self.snapshot.outputs) ?? step.name
    }
}

extension RetryPolicy {
    /// Between questions after an unknown outcome: 100 ms doubling to 5 s, bounded by the saga's deadline alone.
    static let question = RetryPolicy(
        maximumRetries: .max, initialDelay: .milliseconds(100), maximumDelay: .seconds(5))
}
