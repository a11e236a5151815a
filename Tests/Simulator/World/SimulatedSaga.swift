@testable import DeviceProvisioning
@testable import SagaRuntime

/// The saga that is simulated: of the shape of DEVICE_CREATION, with services of the simulation.
///
/// | step  | does                                  | undo                            |
/// |-------|---------------------------------------|---------------------------------|
/// | SEAT  | a seat of eight, in the flush         | given back after MAKE's undo    |
/// | MAKE  | the provider makes a thing            | destroys whatever there is      |
/// | ENTRY | a row                                 | removed with the thing          |
/// | COUNT | the counting service counts it        | counts it back                  |
/// | START | starts it; any number of times        | none                            |
enum SimulatedSaga {
    static let type = "SIMULATED"
    static let callLimit = Duration.seconds(4)

    static func definition(_ machine: Machine, _ world: World) -> SagaDefinition {
        let undo = RetryPolicy(maximumRetries: 80, initialDelay: .milliseconds(500), maximumDelay: .seconds(5))
        let forward = RetryPolicy(maximumRetries: 3, initialDelay: .milliseconds(200), maximumDelay: .seconds(5))
        return SagaDefinition(
            type: Self.type, version: 1,
            steps: [
                StepDefinition(
                    name: "SEAT", action: .database(Self.seat), onCompensated: [Self.giveBackSeat],
                    undoAfter: ["MAKE"]),
                StepDefinition(
                    name: "MAKE", action: .remote(MakeStep(machine: machine, provider: world.provider)),
                    undoIsRemote: true, onCompensated: [Self.removeEntry], undoAfter: ["ENTRY", "START"],
                    retry: forward, undoRetry: undo, callLimit: Self.callLimit),
                StepDefinition(name: "ENTRY", action: .database(Self.entry)),
                StepDefinition(
                    name: "COUNT", action: .remote(CountStep(machine: machine, service: world.counting)),
                    undoIsRemote: true, retry: forward, undoRetry: undo, callLimit: Self.callLimit),
                StepDefinition(
                    name: "START", action: .remote(StartStep(machine: machine, provider: world.provider)),
                    onSucceeded: [Self.startEntry], retry: forward, undoRetry: undo, callLimit: Self.callLimit),
            ], provisionedStep: 3)
    }

    private static let seat = DatabaseStep(
        name: "sim_seat",
        ctes: """
            free AS MATERIALIZED (
                SELECT number FROM sim.seat WHERE saga_id IS NULL ORDER BY number
                LIMIT (SELECT count(*) FROM accepted) FOR UPDATE SKIP LOCKED
            ), granted AS (
                UPDATE sim.seat s SET saga_id = a.saga_id
                FROM (SELECT saga_id, row_number() OVER (ORDER BY ordinal) AS turn FROM accepted) a
                    JOIN (SELECT number, row_number() OVER (ORDER BY number) AS turn FROM free) f USING (turn)
                WHERE s.number = f.number
                RETURNING s.saga_id, '{"seat":' || s.number || '}' AS output
            )
            """,
        argument: { _ in "{}" },
        refusal: StepError(.refused, reason: "SEATS_TAKEN", message: "all seats are taken"))

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

/// As CREATE_PROVIDER_DEVICE.
private struct MakeStep: RemoteStep {
    let machine: Machine
    let provider: Provider

    func isNeeded(request: [UInt8]) -> Bool { true }
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { Provider.settleTime }
    func dependency(request: [UInt8], outputs: [String: String]) -> String? { "provider" }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        let (provider, machine) = (self.provider, self.machine)
        let saga = context.sagaID.rawValue
        let (key, generation) = (context.idempotencyKey, context.generation)
        try context.authorize()
        let answer = await machine.ask(there: provider.there) {
            provider.create(saga: saga, key: key, generation: generation) { machine.lastFrozen != nil }
        }
        guard case .made(let number) = answer else { throw Self.failure(answer) }
        return .done(output: Self.output(number, generation))
    }

    func resolve(_ context: StepContext) async throws(StepError) -> Resolution {
        var adopted: Provider.Thing?
        for thing in try await self.find(context) {
            if adopted == nil, thing.generation == context.generation {
                adopted = thing
            } else {
                _ = try await self.destroy(thing.number, context)
            }
        }
        if let adopted { return .happened(output: Self.output(adopted.number, adopted.generation)) }
        return self.provider.isUniqueByKey ? .repeatable : .absent
    }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone {
        var numbers: [Int] = []
        if let recorded = Self.number(context.outputs["MAKE"]) { numbers.append(recorded) }
        if context.isInDoubt || numbers.isEmpty {
            for thing in try await self.find(context) where !numbers.contains(thing.number) {
                numbers.append(thing.number)
            }
        }
        var undone = Undone.nothingFound
        for number in numbers where try await self.destroy(number, context) { undone = .undone }
        return undone
    }

    func discard(_ context: StepContext, output: String?) async throws(StepError) {
        let recorded = Self.number(context.outputs["MAKE"])
        var numbers: [Int]
        if let made = Self.number(output) {
            numbers = [made]
        } else {
            numbers = try await self.find(context).map(\.number)
        }
        for number in numbers where number != recorded { _ = try await self.destroy(number, context) }
    }

    private func find(_ context: StepContext) async throws(StepError) -> [Provider.Thing] {
        let provider = self.provider
        let saga = context.sagaID.rawValue
        try context.authorize()
        let answer = await self.machine.ask(there: provider.there) { provider.find(saga: saga) }
        guard case .found(let things) = answer else { throw Self.failure(answer) }
        return things
    }

    /// False: there was nothing.
    private func destroy(_ number: Int, _ context: StepContext) async throws(StepError) -> Bool {
        let provider = self.provider
        try context.authorize()
        let answer = await self.machine.ask(there: provider.there) { provider.destroy(number) }
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

    private static func output(_ number: Int, _ generation: Int) -> String { #"{"thing":\#(number)}"# }

    static func number(_ output: String?) -> Int? {
        output.flatMap { Int($0.dropFirst(#"{"thing":"#.utf8.count).dropLast()) }
    }
}

/// As REPORT_QUOTA_USAGE.
private struct CountStep: RemoteStep {
    let machine: Machine
    let service: CountingService

    func isNeeded(request: [UInt8]) -> Bool { true }
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
    let machine: Machine
    let provider: Provider

    var isRepeatable: Bool { true }
    func isNeeded(request: [UInt8]) -> Bool { true }
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { .zero }
    func dependency(request: [UInt8], outputs: [String: String]) -> String? { "provider" }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        guard let number = MakeStep.number(context.outputs["MAKE"]) else {
            throw StepError(.undecidable, reason: "NO_THING", message: "MAKE has no output")
        }
        let provider = self.provider
        try context.authorize()
        let answer = await self.machine.ask(there: provider.there) { provider.start(number) }
        guard case .made = answer else { throw MakeStep.failure(answer) }
        return .done(output: "{}")
    }

    func resolve(_ context: StepContext) async throws(StepError) -> Resolution { .repeatable }
    func compensate(_ context: StepContext) async throws(StepError) -> Undone { .nothingFound }
    func discard(_ context: StepContext, output: String?) async throws(StepError) {}
}
