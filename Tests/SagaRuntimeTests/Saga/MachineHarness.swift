@testable import SagaRuntime

/// A remote step whose calls the test answers itself; it only knows whether it is needed and how long effects lag.
struct ScriptedStep: RemoteStep {
    var needed = true
    var settle: Duration = .seconds(10)
    var isRepeatable = false

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { self.needed }
    func execute(_ context: StepContext) async throws(StepError) -> Execution { .done(output: "") }
    func resolve(_ context: StepContext) async throws(StepError) -> Resolution { .absent }
    func compensate(_ context: StepContext) async throws(StepError) -> Undone { .undone }
    func discard(_ context: StepContext, output: String?) async throws(StepError) {}
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { self.settle }
}

/// Drives a machine by hand, with a clock of its own; no database, no time, no tasks.
final class MachineHarness {
    static let start = Timestamp(milliseconds: 1_730_188_800_000)

    /// ports (database), create, record (database), quota, start.
    static func definition(quotaNeeded: Bool = true, settle: Duration = .seconds(10)) -> SagaDefinition {
        let effect = { (name: String) in SideEffect(name: name, statement: "", argument: { _ in "null" }) }
        return SagaDefinition(
            type: "TEST", version: 1,
            steps: [
                StepDefinition(
                    name: "PORTS",
                    action: .database(
                        DatabaseStep(
                            name: "ports", ctes: "", argument: { _ in "null" },
                            refusal: StepError(.refused, reason: "PORTS_EXHAUSTED", message: "no ports"))),
                    onCompensated: [effect("release")], undoAfter: ["CREATE"]),
                StepDefinition(
                    name: "CREATE", action: .remote(ScriptedStep(settle: settle)), undoIsRemote: true,
                    onCompensated: [effect("remove")], undoAfter: ["RECORD", "START"], callLimit: .seconds(30),
                    unavailableReason: "PROVIDER_UNAVAILABLE"),
                StepDefinition(
                    name: "RECORD",
                    action: .database(
                        DatabaseStep(name: "record", ctes: "", argument: { _ in "null" }, refusal: nil)),
                    onCompensating: [effect("deleting")]),
                StepDefinition(
                    name: "QUOTA", action: .remote(ScriptedStep(needed: quotaNeeded, settle: settle)),
                    undoIsRemote: true,
                    unavailableReason: "QUOTA_UNAVAILABLE"),
                StepDefinition(
                    name: "START", action: .remote(ScriptedStep(settle: settle, isRepeatable: true)),
                    onSucceeded: [effect("running")],
                    unavailableReason: "PROVIDER_UNAVAILABLE"),
            ], provisionedStep: 3)
    }

    /// A step that can be undone, the pivot, and one that comes after it.
    static func deletion() -> SagaDefinition {
        let step = { (name: String, kind: StepDefinition.Kind) in
            StepDefinition(
                name: name, kind: kind, action: .remote(ScriptedStep()), undoIsRemote: kind == .compensatable,
                undoRetry: RetryPolicy(maximumRetries: 5, initialDelay: .seconds(1), maximumDelay: .seconds(300)))
        }
        return SagaDefinition(
            type: "TEST", version: 2,
            steps: [step("CLAIM", .compensatable), step("DESTROY", .pivot), step("RELEASE", .retriable)],
            provisionedStep: 2, sleeps: true)
    }

    var machine: SagaMachine
    var now = MachineHarness.start
    /// Time that passes for this process, whatever the database's clock does.
    var uptime = BootTime(nanoseconds: 1_000_000_000_000)
    /// Everything that was committed.
    var events: [SagaEvent] = []
    var sideEffects: [String] = []

    init(_ definition: SagaDefinition = MachineHarness.definition(), timeout: Duration = .seconds(600)) {
        var generator = SystemRandomNumberGenerator()
        self.machine = SagaMachine(
            definition: definition,
            new: NewSaga(
                id: SagaID(milliseconds: Self.start.milliseconds, using: &generator), type: "TEST", userID: "u",
                resourceID: "00000000-0000-0000-0000-000000000001", requestID: "", method: 1, requestDigest: [],
                batchID: "", request: [], secrets: [], timeout: timeout),
            now: Self.start, random: { 0.5 })
    }

    /// One whose first record is committed: its first call is due.
    static func started(
        _ definition: SagaDefinition = MachineHarness.definition(), timeout: Duration = .seconds(600)
    ) -> MachineHarness {
        let saga = MachineHarness(definition, timeout: timeout)
        saga.commit()
        return saga
    }

    var types: [SagaEventType] { self.events.map(\.type) }
    var snapshot: SagaSnapshot { self.machine.snapshot }

    var moment: Moment { Moment(time: self.now, uptime: self.uptime) }

    func next() -> SagaMachine.Action { self.machine.next(now: self.moment) }

    /// Commits the record that is due; nil if something else is.
    @discardableResult
    func commit(granted: Bool = true) -> SagaRecord? {
        guard case .write(let record) = self.next() else { return nil }
        let outcome = granted ? record.granted : (record.refused ?? record.granted)
        self.sideEffects += outcome.sideEffects.map(\.name)
        self.events += self.machine.recordWritten(
            record, .committed(granted: granted, databaseOutput: record.refused == nil ? nil : "{}"),
            now: self.moment)
        return record
    }

    /// Answers the call that is due, once its intent is durable; nil if something else is due.
    ///
    /// - Parameter after: how long the answer takes.
    @discardableResult
    func answer(_ outcome: SagaMachine.CallOutcome, after delay: Duration = .zero) -> SagaMachine.StepCall? {
        if case .write(let record) = self.next(), record.kind == .intent { self.commit() }
        guard case .call(let call, _) = self.next() else { return nil }
        let asked = self.moment
        self.pass(delay)
        self.machine.callReturned(call, outcome, asked: asked, now: self.moment)
        return call
    }

    /// Answers the call that is due and commits what comes of it; returns the last call, nil if something else was due.
    @discardableResult
    func report(_ outcome: SagaMachine.CallOutcome, times: Int = 1) -> SagaMachine.StepCall? {
        var call: SagaMachine.StepCall?
        for _ in 0..<times {
            call = self.answer(outcome)
            self.commit()
        }
        return call
    }

    /// Gives the saga a command and commits what comes of it.
    @discardableResult
    func command(_ kind: SagaCommand.Kind, at sequence: Int? = nil) -> SagaRecord? {
        self.machine.receive([self.newCommand(kind, at: sequence)])
        return self.commit()
    }

    func newCommand(_ kind: SagaCommand.Kind, at sequence: Int? = nil) -> SagaCommand {
        SagaCommand(
            id: self.machine.newestCommand + 1, kind: kind, issuer: "ann", reason: "a test", sequence: sequence)
    }

    /// Puts the saga to sleep, lets time pass, and wakes it in another process.
    ///
    /// - Parameters:
    ///   - isSameEpoch: what was known of time still counts.
    ///   - dependency: it is woken for that.
    @discardableResult
    func sleep(
        for duration: Duration, isSameEpoch: Bool = true, dependency: String? = nil
    ) -> SagaSleep? {
        guard let wait = self.machine.waiting(now: self.moment) else { return nil }
        let record = self.machine.sleepRecord(wait, now: self.moment)
        guard record.granted.events.isEmpty, let sleep = record.sleep else { return nil }
        self.pass(duration)
        let until = isSameEpoch ? sleep.doubtUntil.map { self.uptime + ($0 - self.now) } : nil
        self.machine = SagaMachine(
            definition: self.machine.definition, snapshot: self.snapshot, version: record.expectedVersion + 3,
            adoptions: record.adoptions, isPoisoned: false, isUnsent: sleep.isUnsent,
            slept: SagaMachine.Awakening(doubtUntil: until, dependency: dependency), secrets: [],
            now: self.moment, random: { 0.5 })
        // What is unsent is so at that version alone.
        if case .write(let record) = self.next(), record.kind == .wake { self.commit() }
        return sleep
    }

    func pass(_ duration: Duration) {
        self.now = self.now + duration
        self.uptime = self.uptime + duration
    }

    /// How long the machine wants to be left alone; nil if it doesn't wait.
    var pause: Duration? {
        if case .wait(let pause) = self.next() { pause } else { nil }
    }

    /// Jumps to when the machine wants to be asked again; false if it doesn't wait.
    @discardableResult
    func wait() -> Bool {
        guard let pause = self.pause else { return false }
        self.pass(pause)
        return true
    }

    /// What another process makes of the rows.
    ///
    /// - Parameter isUnsent: this one gave the saga back, and said so.
    func adopt(adoptions: Int = 1, isPoisoned: Bool = false, isUnsent: Bool = false) {
        self.machine = SagaMachine(
            definition: self.machine.definition, snapshot: self.snapshot, version: self.machine.version + 1,
            adoptions: adoptions, isPoisoned: isPoisoned, isUnsent: isUnsent, secrets: [],
            now: self.moment, random: { 0.5 })
    }
}
