import Testing

@testable import SagaRuntime

/// What a process that was fenced in the midst of a call does about it, whatever the others made of the saga.
@Suite struct FencedCallTests {
    private static let refused = StepError(.refused, reason: "REFUSED", message: "no")
    private static let unavailable = StepError(.unavailable, reason: "AWAY", message: "away")

    /// CREATE's first call, without an answer, settled after 10 s.
    private func lost(_ saga: MachineHarness) -> FencedCall {
        let call = SagaMachine.StepCall(kind: .execute, step: 1, attempt: 1, generation: 1, isInDoubt: false)
        return FencedCall(call: call, output: nil, settledAt: saga.uptime + .seconds(10))
    }

    private func verdicts(_ call: FencedCall, _ saga: MachineHarness) -> [FencedCall.Verdict] {
        [saga.uptime, saga.uptime + .seconds(10)].map { call.verdict(saga.snapshot, now: $0) }
    }

    @Test func inDoubtElsewhereItWaits() {
        let saga = MachineHarness.started()
        let call = self.lost(saga)
        #expect(self.verdicts(call, saga) == [.wait, .wait])
        saga.adopt()
        saga.commit()
        saga.answer(.failed(Self.unavailable))
        #expect(self.verdicts(call, saga) == [.wait, .wait])
    }

    @Test func onceAnotherDeviceIsRecordedItGoesAfterTheSettleTime() {
        let saga = MachineHarness.started()
        let call = self.lost(saga)
        saga.report(.succeeded(output: "{}"))
        #expect(self.verdicts(call, saga) == [.wait, .remove])
        saga.report(.succeeded(output: "{}"), times: 2)
        #expect(saga.snapshot.status == .completed)
        #expect(self.verdicts(call, saga) == [.wait, .remove])
    }

    @Test func beingUndoneItWaitsForTheStepAndNotForTheSaga() {
        let saga = MachineHarness.started()
        let call = self.lost(saga)
        saga.report(.succeeded(output: "{}"), times: 2)
        saga.report(.failed(Self.refused))
        // The quota's undo waits for its next attempt, the device's goes on.
        saga.report(.failed(Self.unavailable))
        #expect(saga.snapshot.steps[1].status == .compensating)
        #expect(self.verdicts(call, saga) == [.wait, .wait])
        saga.report(.undone(.undone))
        #expect(saga.snapshot.status == .compensating && saga.snapshot.steps[1].status == .compensated)
        #expect(self.verdicts(call, saga) == [.wait, .remove])
    }

    @Test func parkedInDoubtIsLeftToAnOperator() {
        let saga = MachineHarness.started()
        let call = self.lost(saga)
        saga.adopt(adoptions: 5, isPoisoned: true)
        saga.commit()
        #expect(saga.snapshot.status == .parked)
        #expect(self.verdicts(call, saga) == [.leave, .leave])
    }

    @Test func parkedWithAnotherDeviceRecordedItGoes() {
        let saga = MachineHarness.started()
        let call = self.lost(saga)
        saga.report(.succeeded(output: "{}"))
        saga.answer(.failed(Self.unavailable))
        saga.adopt(adoptions: 5, isPoisoned: true)
        saga.commit()
        #expect(saga.snapshot.status == .parked && saga.snapshot.steps[1].status == .succeeded)
        #expect(self.verdicts(call, saga) == [.wait, .remove])
    }

    @Test func onlyCallsThatMayHaveActedLeaveSomething() {
        func mayHaveActed(_ outcome: SagaMachine.CallOutcome) -> String?? { outcome.mayHaveActed }
        #expect(mayHaveActed(.succeeded(output: "x")) == .some("x"))
        #expect(mayHaveActed(.abandoned) == .some(nil))
        #expect(mayHaveActed(.failed(StepError(.unknownOutcome, reason: "", message: ""))) == .some(nil))
        #expect(mayHaveActed(.failed(Self.refused)) == nil)
        #expect(mayHaveActed(.failed(StepError(.leaseLost, reason: "", message: ""))) == nil)
    }

    /// A late call under the same key made the very device anew that others had destroyed: its id is the recorded one.
    @Test func whatWasUndoneIsNotHeld() {
        let saga = MachineHarness.started()
        let call = self.lost(saga)
        saga.report(.succeeded(output: "{}"), times: 2)
        #expect(call.held(by: saga.snapshot)[saga.snapshot.steps[1].name] == "{}")
        saga.report(.failed(Self.refused))
        while saga.snapshot.status == .compensating {
            saga.report(.undone(.undone))
        }
        #expect(saga.snapshot.status == .compensated)
        #expect(call.held(by: saga.snapshot)[saga.snapshot.steps[1].name] == nil)
        #expect(call.verdict(saga.snapshot, now: saga.uptime + .seconds(10)) == .remove)
    }
}
