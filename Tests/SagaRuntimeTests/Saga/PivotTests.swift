@testable import SagaRuntime
import Testing

/// Until the pivot's intent is durable a failure turns the saga back; from then on it only goes forward.
struct PivotTests {
    private static let refused = StepError(.refused, reason: "NO", message: "no")
    private static let unavailable = StepError(.unavailable, reason: "AWAY", message: "away")

    /// A deletion whose pivot is under way.
    private func pastPivot() -> MachineHarness {
        let saga = MachineHarness.started(MachineHarness.deletion())
        saga.report(.succeeded(output: "{}"))
        return saga
    }

    @Test func aFailureBeforeThePivotTurnsBack() {
        let saga = MachineHarness.started(MachineHarness.deletion())
        saga.report(.failed(Self.refused))
        #expect(saga.snapshot.status == .compensated)
    }

    @Test func theDeadlineEndsNothingPastThePivot() {
        let saga = self.pastPivot()
        saga.pass(.seconds(10_000))
        #expect(saga.report(.succeeded(output: "{}"))?.step == 1)
        saga.pass(.seconds(10_000))
        #expect(saga.report(.succeeded(output: "{}"))?.step == 2)
        #expect(saga.snapshot.status == .completed)
    }

    @Test func recordsPastThePivotAreNotBoundByTheDeadline() {
        let saga = self.pastPivot()
        saga.answer(.succeeded(output: "{}"))
        let record = saga.commit()
        #expect(record?.notAfter == nil)
        let before = MachineHarness.started(MachineHarness.deletion())
        before.answer(.succeeded(output: "{}"))
        #expect(before.commit()?.notAfter != nil)
    }

    @Test(arguments: [refused, unavailable])
    func whatFailsPastThePivotIsTriedAgainAndThenParks(_ error: StepError) {
        for isRetriable in [false, true] {
            let saga = self.pastPivot()
            if isRetriable { saga.report(.succeeded(output: "{}")) }
            for _ in 0..<5 {
                saga.report(.failed(error))
                #expect(saga.snapshot.status == .running)
                saga.wait()
            }
            saga.report(.failed(error))
            #expect(saga.snapshot.status == .parked)
            #expect(saga.snapshot.failure?.reason == error.reason)
            // Resumed, it goes forward, and is tried as often again.
            saga.command(.resume)
            #expect(saga.snapshot.status == .running && saga.snapshot.failure == nil)
            for _ in 0..<5 {
                saga.report(.failed(error))
                #expect(saga.snapshot.status == .running)
                saga.wait()
            }
            saga.report(.succeeded(output: "{}"), times: isRetriable ? 1 : 2)
            #expect(saga.snapshot.status == .completed)
        }
    }

    @Test func aRefusalIsTriedAgainMoreSlowly() {
        let (refused, unavailable) = (self.pastPivot(), self.pastPivot())
        refused.report(.failed(Self.refused))
        unavailable.report(.failed(Self.unavailable))
        #expect(refused.pause ?? .zero > (unavailable.pause ?? .zero) * 4)
    }

    @Test func whatNobodyCanDecideParks() {
        let saga = self.pastPivot()
        saga.report(.failed(StepError(.undecidable, reason: "WHO_KNOWS", message: "")))
        #expect(saga.snapshot.status == .parked)
    }

    @Test func nothingCameOfAnUnansweredCall() {
        let saga = self.pastPivot()
        saga.answer(.failed(StepError(.unknownOutcome, reason: "LOST", message: "")))
        saga.answer(.resolved(.absent))
        saga.wait()
        saga.report(.resolved(.absent))
        #expect(saga.snapshot.status == .running)
        saga.wait()
        #expect(saga.answer(.succeeded(output: "{}"))?.generation == 2)
    }

    @Test(arguments: [SagaCommand.Kind.cancel, .compensate])
    func nothingTurnsItBackPastThePivot(_ kind: SagaCommand.Kind) {
        let saga = self.pastPivot()
        let record = saga.command(kind)
        #expect(record?.granted.events.map(\.type) == [.commandReceived])
        #expect(saga.snapshot.status == .running && saga.snapshot.commandsReceived == 1)
        saga.report(.succeeded(output: "{}"), times: 2)
        #expect(saga.snapshot.status == .completed)
    }

    @Test func whatHelpsPastThePivotLeadsForward() {
        let saga = self.pastPivot()
        func helps() -> [SagaCommand.Kind] { saga.machine.definition.helpfulCommands(saga.snapshot) }
        #expect(helps() == [])
        saga.report(.failed(StepError(.undecidable, reason: "WHO_KNOWS", message: "")))
        #expect(saga.snapshot.status == .parked && helps() == [.resume, .skip])
        #expect(saga.command(.compensate)?.granted.answers.map(\.result) == [.pastPivot])
    }

    /// It was given while the pivot's call was under way.
    @Test func whatParksPastThePivotIsNotTurnedBack() {
        let saga = self.pastPivot()
        saga.answer(.failed(StepError(.undecidable, reason: "WHO_KNOWS", message: "")))
        saga.machine.receive([saga.newCommand(.cancel)])
        #expect(saga.commit()?.granted.answers.map(\.result) == [.pastPivot])
        #expect(saga.snapshot.status == .parked)
    }

    @Test func aStepThatIsDoneByHandIsSkipped() {
        let saga = self.pastPivot()
        saga.report(.failed(StepError(.undecidable, reason: "WHO_KNOWS", message: "")))
        saga.command(.skip)
        #expect(saga.snapshot.steps[1].status == .skipped)
        #expect(saga.report(.succeeded(output: "{}"))?.step == 2)
        #expect(saga.snapshot.status == .completed)
    }
}
