@testable import SagaRuntime
import Testing

/// Steps that are done once their flush grants something, and whose calls clear the way for that.
struct ClaimTests {
    private static func definition() -> SagaDefinition {
        var definition = MachineHarness.deletion()
        definition.steps[0].action = .remote(ScriptedStep(settle: .zero, isRepeatable: true))
        definition.steps[0].undoIsRemote = false
        definition.steps[0].claim = DatabaseStep(
            name: "claim", ctes: "", argument: { $0.outputs["CLAIM"] ?? "nothing found" },
            refusal: StepError(.refused, reason: "BUSY", message: ""))
        return definition
    }

    private static let job = PendingJob(output: #"{"holder":"x"}"#, note: "waits", pollAfter: .seconds(30))

    /// One whose first claim was refused.
    private static func refused() -> MachineHarness {
        let saga = MachineHarness(Self.definition())
        saga.commit(granted: false)
        return saga
    }

    @Test func whatIsGrantedAtOnceCallsNobody() throws {
        let saga = MachineHarness(Self.definition())
        let record = try #require(saga.commit())
        #expect(
            record.databaseStep?.name == "claim"
                && record.databaseStep?.argument(record.granted.snapshot.view) == "nothing found")
        // The pivot's intent is in the same flush: a claim is never held by a saga that turns back.
        #expect(saga.types == [.sagaStarted, .stepStarted, .stepSucceeded, .stepStarted])
        #expect(saga.snapshot.outputs["CLAIM"] == "{}")
        #expect(saga.answer(.succeeded(output: "{}"))?.step == 1)
    }

    @Test func whatIsRefusedIsClearedAndTriedAgain() throws {
        let saga = Self.refused()
        #expect(saga.types == [.sagaStarted, .stepStarted] && saga.snapshot.status == .running)
        #expect(saga.answer(.succeeded(output: "way"))?.kind == .execute)
        guard case .write(let record) = saga.next() else { return #expect(Bool(false)) }
        #expect(record.databaseStep?.argument(record.granted.snapshot.view) == "way")
        // Somebody was quicker: the way is looked at again.
        saga.commit(granted: false)
        #expect(saga.types.last == .stepProgress && saga.snapshot.status == .running)
        saga.wait()
        #expect(saga.answer(.succeeded(output: "way"))?.kind == .poll)
        saga.commit()
        #expect(saga.types.suffix(2) == [.stepSucceeded, .stepStarted] && saga.snapshot.outputs["CLAIM"] == "{}")
    }

    @Test func itWaitsAsleepAndParksAndGoesOn() throws {
        let saga = Self.refused()
        saga.report(.pending(Self.job))
        #expect(try #require(saga.sleep(for: .seconds(30))).wait.reason == .job)
        saga.report(.failed(StepError(.undecidable, reason: "BLOCKED_BY_SAGA", message: "x")))
        #expect(saga.snapshot.status == .parked && saga.snapshot.failure?.reason == "BLOCKED_BY_SAGA")
        saga.command(.resume)
        #expect(saga.answer(.succeeded(output: "way"))?.kind == .poll)
        saga.commit()
        saga.report(.succeeded(output: "{}"), times: 2)
        #expect(saga.snapshot.status == .completed)
    }

    @Test func theDeadlineStopsIt() {
        let saga = Self.refused()
        saga.report(.pending(Self.job))
        saga.wait()
        saga.answer(.succeeded(output: "way"), after: .seconds(600))
        let record = saga.commit()
        #expect(record?.databaseStep == nil)
        #expect(saga.snapshot.status == .compensated && saga.snapshot.failure?.cause == .timedOut)
        #expect(!saga.types.contains(.stepSucceeded))
    }

    @Test func aClaimIsBoundByTheDeadline() {
        let saga = Self.refused()
        saga.answer(.succeeded(output: "way"))
        #expect(saga.commit()?.notAfter != nil)
    }

    @Test func whatTheDatabaseRefusesIsNotClaimed() {
        let saga = Self.refused()
        saga.answer(.succeeded(output: "way"))
        guard case .write(let record) = saga.next() else { return #expect(Bool(false)) }
        _ = saga.machine.recordWritten(
            record, .rejected(StepError(.invalid, reason: "DATABASE", message: "no")), now: saga.moment)
        saga.commit()
        #expect(saga.snapshot.status == .compensated && !saga.types.contains(.stepSucceeded))
    }

    @Test func aCommandTurnsItBack() {
        let saga = Self.refused()
        saga.report(.pending(Self.job))
        saga.command(.compensate)
        #expect(saga.snapshot.status == .compensated)
    }

    @Test func whoeverTakesItUpLooksAgain() {
        let saga = Self.refused()
        saga.adopt()
        saga.commit()
        #expect(saga.answer(.resolved(.repeatable))?.kind == .resolve)
        #expect(saga.answer(.succeeded(output: "way"))?.kind == .execute)
        saga.commit()
        #expect(saga.types.suffix(2) == [.stepSucceeded, .stepStarted])
    }

    /// From the pivot on what is down is waited for: a probe that fails uses up no attempt.
    @Test func probesPastThePivotUseUpNoAttempt() {
        let saga = MachineHarness(Self.definition())
        saga.commit()
        for _ in 0..<100 {
            guard case .call(var call, _) = saga.next() else { return #expect(Bool(false)) }
            call.isProbe = true
            saga.machine.callReturned(
                call, .failed(StepError(.unavailable, reason: "AWAY", message: "")), asked: saga.moment,
                now: saga.moment)
        }
        saga.report(.succeeded(output: "{}"), times: 2)
        #expect(saga.snapshot.status == .completed && saga.snapshot.steps[1].attempts == 1)
    }
}
