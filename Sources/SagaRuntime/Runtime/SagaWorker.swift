import Logging
import Synchronization

/// Drives the sagas that this instance owns: asks each machine what to do, does it, and reports back.
///
/// One task per saga, so that a saga is as sequential as its machine. Everything that a saga does ends in `drive`.
final class SagaWorker: Sendable {
    struct Dependencies: Sendable {
        var journal: Journal
        var lease: InstanceLease
        var clock: DatabaseClock
        var feed: EventFeed
        var reader: SagaReader
        var registry: SagaRegistry
        var commands: SagaCommands
        /// From which pause on a saga goes to sleep.
        var sleepsFrom: Duration
        var observer: any SagaRuntimeObserver
        /// Tells other replicas' watchers.
        var announce: @Sendable (SagaID) -> Void
        /// What this process may do at a dependency of calls, now; `nil`: nobody limits it.
        var callLimits: @Sendable (String) -> CallLimits?
        /// Whether this process can call a site, now.
        var isServed: @Sendable (String) -> Bool
        var logger: Logger
    }

    private struct State {
        var held: [SagaID: SagaHandle] = [:]
        /// How many of these each user has.
        var heldOfUser: [String: Int] = [:]
        /// New sagas whose flush 1 is not over.
        var creating: [SagaID: Creation] = [:]
        /// Tried here in vain: see `quarantine`.
        var quarantined: Set<SagaID> = []
        /// Those of them that the database doesn't know as such yet.
        var newlyQuarantined: [SagaID: SagaQuarantine.Reason] = [:]
        /// Let go of by a drain with nothing under way: others may have them at once.
        var quiet: [Quiet] = []
        var isDraining = false
        /// Let go of because this instance was fenced.
        var fenced: [SagaID] = []
        /// Fenced calls whose effects are being cleared away.
        var clearing = 0

        mutating func hold(_ id: SagaID, _ handle: SagaHandle) {
            self.held[id] = handle
            self.heldOfUser[handle.userID, default: 0] += 1
        }

        mutating func letGo(of id: SagaID) -> SagaHandle? {
            guard let handle = self.held.removeValue(forKey: id) else { return nil }
            let rest = self.heldOfUser[handle.userID, default: 1] - 1
            self.heldOfUser[handle.userID] = rest > 0 ? rest : nil
            return handle
        }
    }

    /// Who waits to learn how flush 1 of a new saga ended.
    private struct Creation {
        let caller: CheckedContinuation<JournalOutcome, Never>
        /// From then on it is the journal that knows whether it can still be withdrawn.
        var isInJournal = false
    }

    /// A saga that a drain has let go of.
    struct Quiet: Sendable {
        var id: SagaID
        /// Its intents are certainly unsent: whoever takes it up goes on as if nothing had happened.
        var isUnsent: Bool
    }

    private struct Assignment: Sendable {
        var machine: SagaMachine
        var secrets: [UInt8]
        var handle: SagaHandle
    }

    private let dependencies: Dependencies
    private let state = Mutex(State())
    private let assignments: AsyncStream<Assignment>
    private let assign: AsyncStream<Assignment>.Continuation
    private let random: @Sendable () -> Double
    private let surroundings: Surroundings
    /// The limits of calls.
    let deadlines: Deadlines
    private let permits: Permits
    private let breakers: Breakers

    init(_ dependencies: Dependencies) {
        let surroundings = dependencies.clock.surroundings
        self.dependencies = dependencies
        self.surroundings = surroundings
        self.random = { surroundings.fraction() }
        self.deadlines = Deadlines(surroundings)
        self.permits = Permits(limit: 1024, surroundings: surroundings, limits: dependencies.callLimits)
        self.breakers = Breakers(
            clock: dependencies.clock, observer: dependencies.observer, logger: dependencies.logger)
        (self.assignments, self.assign) = AsyncStream.makeStream()
    }

    /// The shares of what dependencies can take may have changed.
    func refreshPermits() { self.permits.refresh() }
    func hasCalls(at dependency: String) -> Bool { self.permits.isTaken(dependency) }
    func outlook(_ dependency: String, user: String) -> CallOutlook? { self.permits.outlook(dependency, user: user) }
    func isDown(_ dependency: String) -> Bool { self.breakers.isDown(dependency) }

    /// Sagas that this process drives.
    var count: Int { self.state.withLock { $0.held.count } }
    /// Whether it drives sagas, or clears away what its fenced calls made.
    var isBusy: Bool { self.state.withLock { !$0.held.isEmpty || $0.clearing > 0 } }
    /// Those that it drives, and the quarantined ones.
    var heldIDs: Set<SagaID> { self.state.withLock { Set($0.held.keys).union($0.quarantined) } }
    /// The same by their types; those without any are left out.
    var countsByType: [String: Int] {
        self.state.withLock {
            $0.held.values.reduce(into: [:]) { counts, handle in counts[handle.type, default: 0] += 1 }
        }
    }
    func count(of userID: String) -> Int { self.state.withLock { $0.heldOfUser[userID] ?? 0 } }
    func handle(_ id: SagaID) -> SagaHandle? { self.state.withLock { $0.held[id] } }

    /// Runs until cancelled; cancelling abandons every call and leaves every saga to whoever adopts it.
    func run() async {
        await withDiscardingTaskGroup { group in
            for await assignment in self.assignments {
                group.addTask { await self.drive(assignment) }
            }
            if Task.isCancelled { group.cancelAll() }
        }
        let handles = self.state.withLock { state in
            defer {
                state.held = [:]
                state.heldOfUser = [:]
            }
            return Array(state.held.values)
        }
        for handle in handles { handle.end() }
    }

    /// Stops starting things: calls under way finish and are recorded, everything else stays for whoever adopts it.
    func beginDraining() {
        self.state.withLock { $0.isDraining = true }
        self.permits.endWaits()
    }

    /// No further sagas; `run` ends once those that are held have ended, and what fenced calls made is cleared away.
    func stop() { self.assign.finish() }

    /// Whoever waits here for a saga has to look elsewhere; the sagas go on.
    func endWaits() {
        for handle in self.state.withLock({ Array($0.held.values) }) { handle.end() }
    }

    /// Sagas that a drain has let go of since this was asked last, with nothing of theirs under way.
    func takeQuiet() -> [Quiet] {
        self.state.withLock { state in
            defer { state.quiet = [] }
            return state.quiet
        }
    }

    /// Sagas that were let go of since this was asked last, because this instance was fenced.
    func takeFenced() -> [SagaID] {
        self.state.withLock { state in
            defer { state.fenced = [] }
            return state.fenced
        }
    }

    // MARK: Taking sagas on

    /// Inserts a new saga and starts driving it. Returns how its flush 1 ended, and the handle to wait on.
    func create(_ new: NewSaga, definition: SagaDefinition) async -> (JournalOutcome, SagaHandle) {
        let handle = SagaHandle(
            type: new.type, provisionedStep: definition.provisionedStep, userID: new.userID)
        let machine = SagaMachine(
            definition: definition, new: new, now: self.dependencies.clock.now(), random: self.random)
        let outcome = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                self.state.withLock { state in
                    state.hold(new.id, handle)
                    state.creating[new.id] = Creation(caller: continuation)
                }
                let assignment = Assignment(machine: machine, secrets: new.secrets, handle: handle)
                if case .enqueued = self.assign.yield(assignment) { return }
                self.created(new.id, .fenced)
                self.release(new.id)
            }
        } onCancel: {
            self.withdraw(new.id)
        }
        return (outcome, handle)
    }

    private func created(_ id: SagaID, _ outcome: JournalOutcome) {
        self.state.withLock { $0.creating.removeValue(forKey: id) }?.caller.resume(returning: outcome)
    }

    /// Whether its caller waits for it still.
    private func isCreating(_ id: SagaID) -> Bool { self.state.withLock { $0.creating[id] != nil } }

    /// False: its caller has been told that it never happens.
    private func handsToJournal(_ id: SagaID) -> Bool {
        self.state.withLock { state in
            if state.creating[id] == nil { return false }
            state.creating[id]?.isInJournal = true
            return true
        }
    }

    /// Its caller has gone. What is not durable yet, and has not left for the database, never happens.
    private func withdraw(_ id: SagaID) {
        let caller = self.state.withLock { state in
            state.creating[id]?.isInJournal == false ? state.creating.removeValue(forKey: id)?.caller : nil
        }
        guard let caller else { return self.dependencies.journal.withdraw(id) }
        caller.resume(returning: .withdrawn)
        self.permits.withdraw(id)
    }

    /// The database takes nothing: nobody is kept waiting for a saga that has not started, and never will.
    ///
    /// - Parameter doubtful: these may have started. If so they run, and the same requests find them.
    func giveUpCreations(doubtful: [SagaID]) {
        let (inDoubt, withdrawn) = self.state.withLock { state in
            let inDoubt = doubtful.compactMap { state.creating.removeValue(forKey: $0) }
            let withdrawn = state.creating.filter {
                !$0.value.isInJournal || Mutant.queuedCreationsStay.isActive
            }
            for id in withdrawn.keys { state.creating[id] = nil }
            return (inDoubt, withdrawn)
        }
        for creation in inDoubt { creation.caller.resume(returning: .unknown) }
        for (id, creation) in withdrawn {
            creation.caller.resume(returning: .withdrawn)
            self.permits.withdraw(id)
        }
    }

    /// Those that sleep: how many may be woken for a dependency.
    func rate(_ dependency: String) -> SagaSleepers.Rate { self.breakers.rate(dependency) }

    /// Tells drivers of commands that came for the sagas that are held here.
    func deliver(_ commands: [SagaID: [SagaCommand]]) {
        for (id, commands) in commands { self.handle(id)?.deliver(commands) }
    }

    /// Goes on with a saga that this instance has just become the owner of. False: it is held already.
    func takeUp(_ machine: SagaMachine, secrets: [UInt8]) -> SagaHandle? {
        let id = machine.snapshot.id
        let handle = SagaHandle(
            type: machine.definition.type, provisionedStep: machine.definition.provisionedStep,
            userID: machine.snapshot.userID)
        let isNew = self.state.withLock { state in
            guard state.held[id] == nil else { return false }
            state.hold(id, handle)
            state.quarantined.remove(id)
            return true
        }
        guard isNew else { return nil }
        handle.update(machine.snapshot)
        guard case .enqueued = self.assign.yield(Assignment(machine: machine, secrets: secrets, handle: handle)) else {
            self.release(id)
            return nil
        }
        return handle
    }

    /// Drives a saga no more: its rows can't be read or written, and taking it up again would not help. The sweep makes that
    /// known (`SagaQuarantine`).
    func quarantine(_ id: SagaID, _ reason: SagaQuarantine.Reason) {
        self.state.withLock { state in
            state.quarantined.insert(id)
            state.newlyQuarantined[id] = reason
        }
    }

    /// What this process has tried in vain.
    var quarantinedIDs: Set<SagaID> { self.state.withLock { $0.quarantined } }
    /// What nobody else knows of yet.
    var newlyQuarantined: [SagaID: SagaQuarantine.Reason] { self.state.withLock { $0.newlyQuarantined } }

    func quarantineIsKnown(_ ids: some Sequence<SagaID>) {
        self.state.withLock { state in for id in ids { state.newlyQuarantined[id] = nil } }
    }

    private func release(_ id: SagaID) {
        let handle = self.state.withLock { $0.letGo(of: id) }
        handle?.end()
    }

    // MARK: Driving one saga

    /// One saga on its way, as this process drives it.
    private struct Drive {
        var machine: SagaMachine
        let secrets: [UInt8]
        let handle: SagaHandle
        var permit: Permits.Holding
        /// Records in a row that the database refused.
        var rejections = 0
        /// The effect of the newest call, until a commit shows that this instance was still the owner after it.
        var uncommitted: FencedCall?
        var isFenced = false
        var isQuarantined = false

        var id: SagaID { self.machine.snapshot.id }
    }

    private func drive(_ assignment: Assignment) async {
        var drive = Drive(
            machine: assignment.machine, secrets: assignment.secrets, handle: assignment.handle,
            permit: Permits.Holding(self.permits, user: assignment.handle.userID))
        var goesOn = true
        while goesOn, !Task.isCancelled {
            drive.machine.receive(drive.handle.takeCommands())
            switch drive.machine.next(now: self.dependencies.clock.moment()) {
            case .finished: goesOn = false
            case .write(let record): goesOn = await self.write(record, &drive)
            case .call(let call, let limit): goesOn = await self.call(call, limit: limit, &drive)
            case .wait(let pause): goesOn = await self.wait(pause, &drive)
            }
        }
        drive.permit.end()
        await self.letGo(of: drive)
    }

    /// - Returns: whether this process goes on with the saga.
    private func write(_ record: SagaRecord, _ drive: inout Drive) async -> Bool {
        // Permits come before intents, so that a crash leaves no more steps in doubt than calls may run.
        var permit = drive.machine.definition.permit(after: record, isLimited: self.permits.isLimited)
        // Others make that call.
        if let gate = permit?.gate, self.isForOthers(gate, drive) { permit = nil }
        var errand = PermitErrand()
        let isLimited = permit.map { self.permits.isLimited($0.gate) } ?? false
        if isLimited { errand.steps = drive.machine.definition.callsAhead(record.granted.snapshot) }
        var limit: Deadlines.Entry?
        if record.birth != nil {
            let rest = drive.machine.snapshot.deadline - self.dependencies.clock.now()
            guard rest > .zero else {
                // It has waited for a permit until it was too late.
                self.created(drive.id, .overloaded)
                return false
            }
            guard self.isCreating(drive.id) else { return false }
            errand.isAdmission = true
            errand.id = drive.id
            if isLimited {
                limit = self.deadlines.add(after: rest + .milliseconds(1)) { [permits, id = drive.id] in
                    permits.withdraw(id)
                }
            }
        }
        let hasWaited = await drive.permit.hold(permit, errand)
        if let limit { self.deadlines.remove(limit) }
        if hasWaited { return true }
        if record.birth != nil, !self.handsToJournal(drive.id) { return false }
        let outcome = await self.dependencies.journal.write(record)
        if record.birth != nil { self.created(drive.id, outcome) }
        switch outcome {
        case .committed where record.sleep != nil:
            drive.uncommitted = nil
            return false
        case .committed(let granted, let output):
            drive.rejections = 0
            drive.uncommitted = nil
            let events = drive.machine.recordWritten(
                record, .committed(granted: granted, databaseOutput: output), now: self.dependencies.clock.moment())
            self.committed(drive.machine.snapshot, record.written(granted: granted), events, drive.handle)
            return true
        case .late:
            return true
        case .commanded:
            await self.readCommands(&drive)
            return true
        case .duplicate, .unknown, .overloaded, .withdrawn:
            return false
        case .fenced:
            drive.isFenced = true
            return false
        case .rejected where record.sleep != nil:
            // Then it stays awake.
            try? await self.surroundings.sleep(for: .milliseconds(500))
            return true
        case .rejected(let error):
            drive.rejections += 1
            if record.birth != nil { return false }
            guard drive.rejections <= 2 else {
                self.log(.critical, "quarantined: the database refuses its records", drive.machine.snapshot)
                drive.isQuarantined = true
                return false
            }
            _ = drive.machine.recordWritten(record, .rejected(error), now: self.dependencies.clock.moment())
            return true
        }
    }

    /// - Returns: whether this process goes on with the saga.
    private func call(_ call: SagaMachine.StepCall, limit: Duration, _ drive: inout Drive) async -> Bool {
        if self.isDraining || !self.dependencies.lease.isTrusted {
            // That may take long: the machine is asked again, by the time that it is then.
            return await self.mayCall()
        }
        let dependency = drive.machine.dependency(of: call)
        if self.isForOthers(dependency, drive) { return await self.leaveToOthers(dependency, &drive) }
        let isLimited = self.permits.isLimited(dependency)
        let permit = drive.machine.definition.permit(for: call, limitedAt: isLimited ? dependency : nil)
        var errand = PermitErrand()
        if isLimited, !permit.isUndo { errand.steps = drive.machine.definition.callsAhead(drive.machine.snapshot) }
        if await drive.permit.hold(permit, errand) { return true }
        let asked = self.dependencies.clock.moment()
        var call = call
        // What is repeated without bound.
        if call.kind != .execute || drive.machine.isPastPivot {
            switch self.breakers.admit(dependency, limit: drive.machine.callLimit(of: call)) {
            case .go:
                break
            case .probe:
                call.isProbe = true
            case .wait(let until, let isLong):
                drive.machine.postpone(call, by: until - asked.uptime, for: dependency, isLong: isLong, now: asked)
                return true
            }
        }
        let (outcome, wasStopped) = await self.perform(call, drive, limit: limit)
        // The next call counts anew.
        if isLimited { drive.permit.release(after: drive.machine.definition.steps[call.step].name) }
        let now = self.dependencies.clock.moment()
        // The deadline and commands cut short what goes forward; an undo has all the time that its call may take.
        let wasCutShort = wasStopped || call.kind != .compensate && now.time >= drive.machine.snapshot.deadline
        self.breakers.heard(outcome, from: dependency, wasCutShort: wasCutShort)
        if call.kind == .execute {
            drive.uncommitted = outcome.mayHaveActed.map { output in
                let settle = output == nil ? drive.machine.settleTime(step: call.step) : .zero
                return FencedCall(call: call, output: output, settledAt: now.uptime + settle)
            }
        }
        drive.machine.callReturned(call, outcome, asked: asked, now: now)
        return true
    }

    /// Whether a saga's call is to be made by another process: this one has no share of the calls to a dependency, or can't call
    /// the site that the saga has found its device at.
    private func isForOthers(_ dependency: String, _ drive: Drive) -> Bool {
        let definition = drive.machine.definition
        guard definition.sleeps else { return false }
        let snapshot = drive.machine.snapshot
        if let site = definition.site(snapshot.request, snapshot.outputs) {
            if !self.dependencies.isServed(site), !Mutant.callsGoToWhatIsHere.isActive { return true }
        } else if definition.missing(snapshot.request, snapshot.outputs) != nil {
            return true
        }
        return self.permits.hasNoShare(of: dependency)
    }

    /// Puts a saga to sleep. Only those that serve its site and have a share of the dependency's calls wake it, as many as they can
    /// serve: what they took beyond that would wait with them, before new sagas of theirs.
    private func leaveToOthers(_ dependency: String, _ drive: inout Drive) async -> Bool {
        drive.permit.release()
        let now = self.dependencies.clock.moment()
        let goesForward = drive.machine.snapshot.status == .running && !drive.machine.isPastPivot
        let wait = SagaWait(
            reason: .noPermit, dependency: dependency, until: goesForward ? drive.machine.snapshot.deadline : nil)
        return await self.write(drive.machine.sleepRecord(wait, now: now), &drive)
    }

    /// - Returns: whether this process goes on with the saga.
    private func wait(_ pause: Duration, _ drive: inout Drive) async -> Bool {
        guard !self.isDraining, !self.dependencies.lease.isFenced else { return false }
        // A back-off may last minutes; others may call meanwhile.
        drive.permit.release()
        let now = self.dependencies.clock.moment()
        if drive.machine.definition.sleeps, !Mutant.whatWaitsStaysAwake.isActive,
            let wait = drive.machine.waiting(now: now),
            wait.until.map({ $0 - now.time >= self.dependencies.sleepsFrom }) ?? true
        {
            return await self.write(drive.machine.sleepRecord(wait, now: now), &drive)
        }
        // Short naps, so that draining and a corrected clock are noticed.
        try? await self.surroundings.sleep(for: max(.milliseconds(1), min(pause, .milliseconds(500))))
        return true
    }

    /// This process drives the saga no longer: others may have it, now or once the lease is over.
    private func letGo(of drive: Drive) async {
        let id = drive.id
        self.created(id, .fenced)
        if drive.isQuarantined {
            // In this order: in between, the sweep would take it for one that nobody holds.
            self.quarantine(id, .refused)
            self.release(id)
            return
        }
        if drive.uncommitted == nil, self.isDraining {
            let isUnsent = drive.machine.isUnsent
            self.state.withLock { $0.quiet.append(Quiet(id: id, isUnsent: isUnsent)) }
        }
        if self.dependencies.lease.isFenced { self.state.withLock { $0.fenced.append(id) } }
        // A journal that was merely stopped says "fenced" too; then the rows still belong to this call.
        let isFenced = drive.isFenced || self.dependencies.lease.isFenced
        guard isFenced, let call = drive.uncommitted else {
            self.release(id)
            return
        }
        self.state.withLock { $0.clearing += 1 }
        self.release(id)
        await self.clearAway(call, drive.machine, drive.secrets)
        self.state.withLock { $0.clearing -= 1 }
    }

    /// A flush was refused, since the saga was given commands that are not known here.
    private func readCommands(_ drive: inout Drive) async {
        if let commands = try? await self.dependencies.commands.open(of: [drive.id])[drive.id] {
            drive.machine.receive(commands)
        } else {
            try? await self.surroundings.sleep(for: .milliseconds(100))
        }
    }

    private var isDraining: Bool { self.state.withLock { $0.isDraining } }

    /// Waits for the trust in the lease; false if no call may start any more.
    private func mayCall() async -> Bool {
        while !Task.isCancelled {
            if self.isDraining || self.dependencies.lease.isFenced { return false }
            if self.dependencies.lease.isTrusted { return true }
            try? await self.surroundings.sleep(for: .milliseconds(50))
        }
        return false
    }

    private func committed(
        _ snapshot: SagaSnapshot, _ written: SagaRecord.Outcome, _ events: [SagaEvent], _ handle: SagaHandle
    ) {
        handle.update(snapshot)
        self.dependencies.feed.publish(snapshot.id, events)
        self.dependencies.announce(snapshot.id)
        let observer = self.dependencies.observer
        for answer in written.answers { observer.commandConsumed(answer.kind, answer.result) }
        for event in events {
            switch event.type {
            case .sagaStarted: observer.sagaStarted(type: snapshot.type)
            case .sagaAdopted: observer.sagaAdopted(type: snapshot.type)
            case .stepRetrying:
                observer.stepRetried(
                    type: snapshot.type, step: event.step, isCompensation: snapshot.status == .compensating)
            case .stepFailed: observer.stepFailed(type: snapshot.type, step: event.step)
            case .stepCompensated: observer.stepCompensated(type: snapshot.type, step: event.step)
            case .sagaCompleted, .sagaCompensated, .sagaParked:
                observer.sagaEnded(
                    type: snapshot.type, status: snapshot.status, failure: snapshot.failure,
                    duration: event.time - snapshot.createdAt)
            case .stepStarted, .stepSucceeded, .stepSkipped, .stepProgress, .sagaCompensating,
                .stepCompensating, .stepCompensationFailed, .sagaResumed, .commandReceived, .unspecified:
                break
            }
            self.log(event, snapshot)
        }
    }

    // MARK: Calls

    /// Calls the other side, and gives up after `limit`. A call that was given up is cancelled and may still take effect;
    /// the machine counts it as unknown, unless nothing was sent: then nothing will be.
    ///
    /// A step whose doubt costs nothing is given up at once when a command turns its saga back.
    private func perform(
        _ call: SagaMachine.StepCall, _ drive: Drive, limit: Duration
    ) async -> (SagaMachine.CallOutcome, wasStopped: Bool) {
        let machine = drive.machine
        guard case .remote(let step) = machine.definition.steps[call.step].action else { return (.abandoned, false) }
        let name = machine.definition.steps[call.step].name
        let limit = max(limit, .milliseconds(1))
        let authority = CallAuthority(
            lease: self.dependencies.lease, limit: limit, surroundings: self.surroundings)
        let context = self.context(call, machine, drive.secrets) { () throws(StepError) in
            try authority.authorize()
            FaultPoint.hit("call.\(name).\(call.kind.rawValue).sending")
        }
        FaultPoint.hit("call.\(name).\(call.kind.rawValue).before")
        let mayStop = call.kind == .execute && step.isRepeatable && !machine.isPastPivot
        let wasStopped = Atomic(false)
        let outcome = await Race.run(limit: limit, self.deadlines) { stop in
            guard mayStop else { return }
            drive.handle.callIsUnderWay {
                wasStopped.store(true, ordering: .relaxed)
                stop()
            }
        } _: {
            await Self.call(step, call.kind, context)
        } meanwhile: {
            FaultPoint.hit("call.\(name).\(call.kind.rawValue).during")
        }
        if mayStop { drive.handle.callIsUnderWay(stop: nil) }
        let wasSent = authority.end() || Mutant.whatWaitedCountsAsSent.isActive
        FaultPoint.hit("call.\(name).\(call.kind.rawValue).after")
        let isStopped = wasStopped.load(ordering: .relaxed) && outcome == nil
        return ((outcome ?? .abandoned).knowing(wasSent: wasSent), isStopped)
    }

    private static func call(
        _ step: any RemoteStep, _ kind: SagaMachine.StepCall.Kind, _ context: StepContext
    ) async -> SagaMachine.CallOutcome {
        do throws(StepError) {
            switch kind {
            case .execute: return .executed(try await step.execute(context))
            case .poll: return .executed(try await step.poll(context))
            case .resolve: return .resolved(try await step.resolve(context))
            case .compensate: return .undone(try await step.compensate(context))
            }
        } catch {
            return .failed(error)
        }
    }

    private func context(
        _ call: SagaMachine.StepCall, _ machine: SagaMachine, _ secrets: [UInt8],
        authorize: @escaping @Sendable () throws(StepError) -> Void
    ) -> StepContext {
        StepContext(
            sagaID: machine.snapshot.id, step: machine.definition.steps[call.step].name, attempt: call.attempt,
            generation: call.generation, request: machine.snapshot.request, outputs: machine.snapshot.outputs,
            secrets: secrets, isInDoubt: call.isInDoubt, isRepeat: call.isRepeat, deadline: machine.snapshot.deadline,
            authorize: authorize)
    }

    /// This instance was fenced while a call was under way: what it made goes, unless the saga, as others leave it, holds it.
    ///
    /// Takes as long as those others need to decide; ends with this process, which a graceful stop puts off for
    /// `drain-timeout`.
    private func clearAway(_ fenced: FencedCall, _ machine: SagaMachine, _ secrets: [UInt8]) async {
        guard case .remote(let step) = machine.definition.steps[fenced.call.step].action else { return }
        // Removing what nobody owns needs no lease.
        var context = self.context(fenced.call, machine, secrets) { () throws(StepError) in }
        var pause = Duration.milliseconds(250)
        var failures = 0
        while !Task.isCancelled {
            if let saga = try? await self.dependencies.reader.snapshot(machine.snapshot.id) {
                switch fenced.verdict(saga, now: self.dependencies.clock.moment().uptime) {
                case .wait:
                    break
                case .leave:
                    return
                case .remove:
                    context.outputs = fenced.held(by: saga)
                    do throws(StepError) {
                        try await step.discard(context, output: fenced.output)
                        self.dependencies.logger.log(
                            .warning, cause: "worker.cleared", "[SAGA] cleared away what a fenced call may have made",
                            metadata: ["saga_id": "\(machine.snapshot.id)"])
                        return
                    } catch {
                        failures += 1
                        self.dependencies.logger.log(
                            failures < 100 ? .warning : .error, cause: "worker.clear \(context.step)",
                            "[SAGA] can't clear away what a fenced call may have made: \(error.message)",
                            metadata: ["saga_id": "\(machine.snapshot.id)"])
                    }
                }
            }
            try? await self.surroundings.sleep(for: pause)
            pause = min(pause * 2, .seconds(failures > 0 ? 30 : 2))
        }
    }

    // MARK: Logs

    private func log(_ level: Logger.Level, _ message: String, _ snapshot: SagaSnapshot) {
        self.dependencies.logger.log(level: level, "[SAGA] \(message)", metadata: ["saga_id": "\(snapshot.id)"])
    }

    /// One line for a saga's end, always; of what fails and is retried, one for each cause and minute; the rest is for
    /// whoever debugs.
    private func log(_ event: SagaEvent, _ snapshot: SagaSnapshot) {
        let (level, isThinned): (Logger.Level, Bool) =
            switch event.type {
            case .sagaParked, .stepCompensationFailed: (.error, false)
            case .sagaCompleted, .sagaCompensated, .commandReceived: (.info, false)
            case .stepFailed, .stepRetrying, .sagaAdopted: (.warning, true)
            case .sagaStarted, .stepStarted, .stepSucceeded, .sagaCompensating, .stepCompensating, .stepCompensated,
                .stepProgress, .sagaResumed, .stepSkipped, .unspecified:
                (.debug, false)
            }
        guard level >= self.dependencies.logger.logLevel else { return }
        var metadata: Logger.Metadata = ["saga_id": "\(snapshot.id)", "sequence": "\(event.sequence)"]
        // Events of the whole saga too say how far it is.
        if snapshot.steps.indices.contains(event.stepIndex) {
            let step = snapshot.steps[event.stepIndex]
            metadata["step"] = "\(step.name)"
            metadata["attempt"] = "\(event.attempt > 0 ? event.attempt : step.attempts)"
        }
        let reason = event.type == .sagaCompensated ? snapshot.failure?.reason ?? event.reason : event.reason
        if !reason.isEmpty { metadata["reason"] = "\(reason)" }
        if !event.message.isEmpty { metadata["error"] = "\(event.message)" }
        if isThinned {
            let step = event.type == .sagaAdopted ? "" : event.step
            self.dependencies.logger.log(
                level, cause: "\(event.type.name) \(step) \(reason)", "[SAGA] \(event.type.name)", metadata: metadata)
        } else {
            self.dependencies.logger.log(level: level, "[SAGA] \(event.type.name)", metadata: metadata)
        }
    }
}
