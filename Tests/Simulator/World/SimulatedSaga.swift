@testable import DeviceProvisioning
@testable import SagaRuntime

/// The saga that is simulated: of the shape of DEVICE_CREATION, with services of the simulation.
///
/// | step  | does                                  | undo                            |
/// |-------|---------------------------------------|---------------------------------|
/// | SEAT  | a seat of six, in the flush, and where | given back after MAKE's undo   |
/// | MAKE  | a provider makes a thing, or by a job | destroys whatever there is      |
/// | ENTRY | a row                                 | removed with the thing          |
/// | COUNT | the counting service counts it        | counts it back                  |
/// | START | starts it; any number of times        | none                            |
enum SimulatedSaga {
    static let type = "SIMULATED"
    /// Where calls wait for a connection, they are given up while they do; what is sent has half of it for its answer.
    private static func callLimit(_ traits: Plan.Traits) -> Duration {
        traits.connections == nil ? .seconds(4) : .milliseconds(4600)
    }

    /// What is known of where a saga's things are made.
    static func site(_ outputs: [String: String]) -> String? {
        // {"seat":1,"site":"west"}
        let words = (outputs["SEAT"] ?? "").split(separator: "\"")
        return words.count > 5 && words[3] == "site" ? String(words[5]) : nil
    }

    static func definition(_ replica: Replica, _ machine: Machine, _ world: World) -> SagaDefinition {
        let traits = world.plan.traits
        let callLimit = Self.callLimit(traits)
        let providers = Providers(machine: machine, replica: replica, world: world)
        let undo = RetryPolicy(maximumRetries: 80, initialDelay: .milliseconds(500), maximumDelay: .seconds(5))
        let forward = RetryPolicy(
            maximumRetries: traits.connections == nil ? 3 : 0, initialDelay: .milliseconds(200),
            maximumDelay: .seconds(5))
        var definition = SagaDefinition(
            type: Self.type, version: traits.sleeps ? 2 : 1,
            steps: [
                StepDefinition(
                    name: "SEAT", action: .database(Self.seat(choosesSite: traits.sites.count > 1)),
                    onCompensated: [Self.giveBackSeat],
                    undoAfter: ["MAKE"]),
                StepDefinition(
                    name: "MAKE", action: .remote(MakeStep(providers: providers)),
                    undoIsRemote: true, onCompensated: [Self.removeEntry], undoAfter: ["ENTRY", "START"],
                    retry: forward, undoRetry: undo, callLimit: callLimit),
                StepDefinition(name: "ENTRY", action: .database(Self.entry)),
                StepDefinition(
                    name: "COUNT", action: .remote(CountStep(machine: machine, service: world.counting)),
                    undoIsRemote: true, retry: forward, undoRetry: undo, callLimit: callLimit),
                StepDefinition(
                    name: "START", kind: traits.hasPivot ? .pivot : .compensatable,
                    action: .remote(StartStep(providers: providers)),
                    onSucceeded: [Self.startEntry], retry: forward, undoRetry: undo, callLimit: callLimit),
            ], provisionedStep: 3, sleeps: traits.sleeps)
        if traits.sites.count > 1 { definition.site = { _, outputs in Self.site(outputs) } }
        return definition
    }

    private static func seat(choosesSite: Bool) -> DatabaseStep {
        var step = choosesSite ? Self.seatAtSite : Self.seat
        step.choosesSite = choosesSite
        return step
    }

    private static let seat = Self.seat(
        "sim_seat", output: "'{\"seat\":' || s.number || '}'", argument: { _ in "{}" })
    private static let seatAtSite = Self.seat(
        "sim_seat_at", output: "'{\"seat\":' || s.number || ',\"site\":\"' || (a.argument->>'site') || '\"}'",
        argument: { #"{"site":"\#($0.sites.first ?? "")"}"# })

    private static func seat(
        _ name: String, output: String, argument: @escaping @Sendable (SagaView) -> String
    ) -> DatabaseStep {
        DatabaseStep(
            name: name,
            ctes: """
                free AS MATERIALIZED (
                    SELECT number FROM sim.seat WHERE saga_id IS NULL ORDER BY number
                    LIMIT (SELECT count(*) FROM accepted) FOR UPDATE SKIP LOCKED
                ), granted AS (
                    UPDATE sim.seat s SET saga_id = a.saga_id
                    FROM (SELECT saga_id, argument, row_number() OVER (ORDER BY ordinal) AS turn FROM accepted) a
                        JOIN (SELECT number, row_number() OVER (ORDER BY number) AS turn FROM free) f USING (turn)
                    WHERE s.number = f.number
                    RETURNING s.saga_id, \(output) AS output
                )
                """,
            argument: argument,
            refusal: StepError(.refused, reason: "SEATS_TAKEN", message: "all seats are taken"))
    }

    private static let giveBackSeat = SideEffect(
        name: "sim_seat_back",
        statement: "UPDATE sim.seat s SET saga_id = NULL FROM accepted a WHERE s.saga_id = a.saga_id",
        argument: { _ in "{}" })

    private static let entry = DatabaseStep(
        name: "sim_entry",
        ctes: """
            granted AS (
                INSERT INTO sim.entry (saga_id, status) SELECT saga_id, 'MADE' FROM accepted
                RETURNING saga_id, NULL::text AS output
            )
            """,
        argument: { _ in "{}" }, refusal: nil)

    private static let startEntry = SideEffect(
        name: "sim_entry_start",
        statement: "UPDATE sim.entry e SET status = 'STARTED' FROM accepted a WHERE e.saga_id = a.saga_id",
        argument: { _ in "{}" })

    private static let removeEntry = SideEffect(
        name: "sim_entry_remove",
        statement: "DELETE FROM sim.entry e USING accepted a WHERE e.saga_id = a.saga_id", argument: { _ in "{}" })
}

/// The providers, as one replica can call them.
///
/// Unchecked: of one thread.
private final class Providers: @unchecked Sendable {
    private let machine: Machine
    private let replica: Replica
    private let world: World
    private let connections: Connections?

    init(machine: Machine, replica: Replica, world: World) {
        self.machine = machine
        self.replica = replica
        self.world = world
        self.connections = world.plan.traits.connections.map { Connections($0) }
    }

    var haveLongJobs: Bool { self.world.plan.traits.hasLongJobs }
    func site(_ outputs: [String: String]) -> String {
        let site = SimulatedSaga.site(outputs) ?? self.world.plan.traits.sites[0]
        if Mutant.callsGoToWhatIsHere.isActive, !self.replica.calls.contains(site) {
            return self.replica.calls.sorted()[0]
        }
        return site
    }
    func dependency(_ outputs: [String: String]) -> String { "provider \(self.site(outputs))" }
    func provider(_ outputs: [String: String]) -> Provider { self.world.provider(at: self.site(outputs)) }

    func ask(
        _ context: StepContext, _ serve: @escaping (Provider, Machine) -> Reply<Provider.Answer>
    ) async throws(StepError) -> Provider.Answer? {
        let (machine, replica, world) = (self.machine, self.replica, self.world)
        let site = self.site(context.outputs)
        let provider = world.provider(at: site)
        // Who is given up meanwhile is still in the line, and is told so when its turn comes.
        await self.connections?.take()
        defer { self.connections?.giveBack() }
        try context.authorize()
        return await machine.ask(there: provider.there) {
            if world.canCall(replica, site, for: context.sagaID.rawValue) { return serve(provider, machine) }
            return Reply(answer: .unavailable, after: .milliseconds(2))
        }
    }
}

/// A replica's connections to the provider: who finds none waits in a line.
///
/// Unchecked: of one thread.
private final class Connections: @unchecked Sendable {
    private var free: Int
    private var waiting: [UnsafeContinuation<Void, Never>] = []

    init(_ count: Int) { self.free = count }

    func take() async {
        if self.free > 0 {
            self.free -= 1
        } else {
            await withUnsafeContinuation { self.waiting.append($0) }
        }
    }

    func giveBack() {
        if self.waiting.isEmpty { self.free += 1 } else { self.waiting.removeFirst().resume() }
    }
}

/// As CREATE_PROVIDER_DEVICE.
private struct MakeStep: RemoteStep {
    let providers: Providers

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { Provider.settleTime }
    func dependency(request: [UInt8], outputs: [String: String]) -> String? { self.providers.dependency(outputs) }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        let saga = context.sagaID.rawValue
        let (key, generation) = (context.idempotencyKey, context.generation)
        let answer = try await self.providers.ask(context) { provider, machine in
            provider.create(saga: saga, key: key, generation: generation) { machine.lastFrozen != nil }
        }
        return try self.execution(answer)
    }

    func poll(_ context: StepContext) async throws(StepError) -> Execution {
        guard let job = Self.job(context.outputs["MAKE"]) else {
            throw StepError(.undecidable, reason: "NO_JOB", message: "MAKE has no job")
        }
        return try self.execution(try await self.providers.ask(context) { provider, _ in provider.poll(job) })
    }

    private func execution(_ answer: Provider.Answer?) throws(StepError) -> Execution {
        let isLong = self.providers.haveLongJobs
        switch answer {
        case .made(let number):
            return .done(output: #"{"thing":\#(number)}"#)
        case .accepted(let job, let isHalfDone):
            return .pending(
                PendingJob(
                    output: #"{"job":\#(job)}"#, note: isHalfDone ? "half of it is done" : "it has begun",
                    pollAfter: .milliseconds(isLong ? 800 : 300 + job * 370 % 900)))
        default:
            throw Self.failure(answer)
        }
    }

    private static let isUnderWay = StepError(
        .throttled(after: nil), reason: "JOB_UNDER_WAY", message: "a job is under way")

    func resolve(_ context: StepContext) async throws(StepError) -> Resolution {
        let isUniqueByKey = self.providers.provider(context.outputs).isUniqueByKey
        var adopted: Provider.Thing?
        let (things, jobs) = try await self.find(context)
        for thing in things {
            if adopted == nil, thing.generation == context.generation {
                adopted = thing
            } else {
                _ = try await self.destroy(thing.number, context)
            }
        }
        // What one more job will make is not there yet: it is asked about until it is.
        var expected =
            adopted == nil ? jobs.first { $0.generation == context.generation && !$0.isCancelled }?.number : nil
        var isClear = true
        for job in jobs where job.number != expected {
            if try await self.cancel(job.number, context) == false { isClear = false }
        }
        if isUniqueByKey, isClear { expected = nil }
        if expected != nil || !isClear { throw Self.isUnderWay }
        if let adopted { return .happened(output: #"{"thing":\#(adopted.number)}"#) }
        return isUniqueByKey ? .repeatable : .absent
    }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone {
        var numbers: [Int] = []
        if let recorded = Self.number(context.outputs["MAKE"]) { numbers.append(recorded) }
        var isUnderWay = false
        if context.isInDoubt || numbers.isEmpty {
            let (things, jobs) = try await self.find(context)
            for job in jobs where try await self.cancel(job.number, context) == false { isUnderWay = true }
            for thing in things where !numbers.contains(thing.number) { numbers.append(thing.number) }
        }
        var undone = Undone.nothingFound
        for number in numbers where try await self.destroy(number, context) { undone = .undone }
        // A job that ended meanwhile may have left something: that is looked for again.
        return isUnderWay ? .pending(pollAfter: .milliseconds(900)) : undone
    }

    func discard(_ context: StepContext, output: String?) async throws(StepError) {
        let recorded = Self.number(context.outputs["MAKE"])
        let recordedJob = Self.job(context.outputs["MAKE"])
        if let made = Self.number(output) {
            if made != recorded { _ = try await self.destroy(made, context) }
            return
        }
        let (things, jobs) = try await self.find(context)
        var isClear = true
        for job in jobs where job.number != recordedJob {
            if try await self.cancel(job.number, context) == false { isClear = false }
        }
        for thing in things where thing.number != recorded && (recordedJob == nil || thing.job != recordedJob) {
            _ = try await self.destroy(thing.number, context)
        }
        if !isClear { throw Self.isUnderWay }
    }

    private func find(
        _ context: StepContext
    ) async throws(StepError) -> (things: [Provider.Thing], jobs: [Provider.Job]) {
        let saga = context.sagaID.rawValue
        let answer = try await self.providers.ask(context) { provider, _ in provider.find(saga: saga) }
        guard case .found(let things, let jobs) = answer else { throw Self.failure(answer) }
        return (things, jobs)
    }

    /// False: it is still under way, and may leave a thing.
    private func cancel(_ job: Int, _ context: StepContext) async throws(StepError) -> Bool {
        switch try await self.providers.ask(context, { provider, _ in provider.cancel(job) }) {
        case .accepted: return false
        // Over since it was found: whatever it made was not found.
        case .gone: return false
        case let answer: throw Self.failure(answer)
        }
    }

    /// False: there was nothing.
    private func destroy(_ number: Int, _ context: StepContext) async throws(StepError) -> Bool {
        let answer = try await self.providers.ask(context) { provider, _ in provider.destroy(number) }
        switch answer {
        case .gone: return true
        case .notFound: return false
        default: throw Self.failure(answer)
        }
    }

    static func failure(_ answer: Provider.Answer?) -> StepError {
        switch answer {
        case .refused: StepError(.refused, reason: "PROVIDER_REFUSED", message: "no")
        case .throttled: StepError(.throttled(after: .milliseconds(300)), reason: "PROVIDER_BUSY", message: "later")
        case .unavailable: StepError(.unavailable, reason: "PROVIDER_DOWN", message: "down")
        default: StepError(.unknownOutcome, reason: "PROVIDER_SILENT", message: "no answer")
        }
    }

    static func number(_ output: String?) -> Int? { Self.number(output, after: #"{"thing":"#) }
    private static func job(_ output: String?) -> Int? { Self.number(output, after: #"{"job":"#) }

    private static func number(_ output: String?, after prefix: String) -> Int? {
        guard let output, output.hasPrefix(prefix) else { return nil }
        return Int(output.dropFirst(prefix.utf8.count).dropLast())
    }
}

/// As REPORT_QUOTA_USAGE.
private struct CountStep: RemoteStep {
    let machine: Machine
    let service: CountingService

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { .zero }
    func dependency(request: [UInt8], outputs: [String: String]) -> String? { "counting" }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        try await self.send(.increment(key: context.idempotencyKey), context)
        return .done(output: "{}")
    }

    func resolve(_ context: StepContext) async throws(StepError) -> Resolution {
        self.service.honoursKeys ? .repeatable : .undecidable(Self.inDoubt)
    }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone {
        if context.isInDoubt || context.isRepeat, !self.service.honoursKeys { throw Self.inDoubt }
        do throws(StepError) {
            try await self.send(.decrement(compensating: context.idempotencyKey), context)
        } catch {
            guard error.errorClass == .unknownOutcome, !self.service.honoursKeys else { throw error }
            throw Self.inDoubt
        }
        return .undone
    }

    func discard(_ context: StepContext, output: String?) async throws(StepError) {}

    private func send(_ operation: CountingService.Operation, _ context: StepContext) async throws(StepError) {
        let service = self.service
        let saga = context.sagaID.rawValue
        try context.authorize()
        let status = await self.machine.ask(there: service.there, left: { service.left(saga) }) {
            service.serve(operation, saga: saga)
        }
        guard let status else {
            throw StepError(.unknownOutcome, reason: "COUNTING_SILENT", message: "no answer")
        }
        let report: QuotaAnswer.Report = if case .increment = operation { .increment } else { .decrement }
        switch QuotaAnswer(
            status: status, body: .none, to: report, retryAfter: status == 429 ? "1" : nil, now: 0)
        {
        case .done:
            service.answered(saga)
        case .refused:
            if status != 408 { service.answered(saga) }
            throw StepError(.refused, reason: "COUNTING_REFUSED", message: "\(status)")
        case .throttled(let delay):
            if status != 408 { service.answered(saga) }
            throw StepError(.throttled(after: delay), reason: "COUNTING_BUSY", message: "\(status)")
        case .misdirected:
            service.answered(saga)
            throw StepError(.unavailable, reason: "COUNTING_MISDIRECTED", message: "\(status)")
        case .contradicted:
            throw StepError(.undecidable, reason: "COUNTING_REFUSED", message: "\(status)")
        case .unknown:
            throw StepError(.unknownOutcome, reason: "COUNTING_SILENT", message: "\(status)")
        }
    }

    private static let inDoubt = StepError(
        .undecidable, reason: "COUNT_IN_DOUBT", message: "whether it was counted is not known")
}

private struct StartStep: RemoteStep {
    let providers: Providers

    var isRepeatable: Bool { true }
    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { .zero }
    func dependency(request: [UInt8], outputs: [String: String]) -> String? { self.providers.dependency(outputs) }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        guard let number = MakeStep.number(context.outputs["MAKE"]) else {
            throw StepError(.undecidable, reason: "NO_THING", message: "MAKE has no output")
        }
        let answer = try await self.providers.ask(context) { provider, _ in provider.start(number) }
        guard case .made = answer else { throw MakeStep.failure(answer) }
        return .done(output: "{}")
    }

    func resolve(_ context: StepContext) async throws(StepError) -> Resolution { .repeatable }
    func compensate(_ context: StepContext) async throws(StepError) -> Undone { .nothingFound }
    func discard(_ context: StepContext, output: String?) async throws(StepError) {}
}
