@testable import SagaRuntime
import Testing

/// Steps whose work takes long on the other side.
struct PendingJobTests {
    private static let job = PendingJob(output: #"{"job":7}"#, note: "half", pollAfter: .seconds(30))
    private static let settle = Duration.seconds(10)

    private func pending() -> MachineHarness {
        let saga = MachineHarness.started()
        saga.report(.pending(Self.job))
        return saga
    }

    @Test func whatToAskAboutIsDurableFirst() {
        let saga = self.pending()
        #expect(saga.events.last?.type == .stepProgress && saga.events.last?.message == "half")
        #expect(saga.snapshot.outputs["CREATE"] == Self.job.output)
        #expect(saga.pause == .seconds(30))
        #expect(saga.machine.waiting(now: saga.moment)?.reason == .job)
        saga.wait()
        #expect(saga.answer(.succeeded(output: #"{"id":1}"#))?.kind == .poll)
        saga.commit()
        #expect(saga.snapshot.outputs["CREATE"] == #"{"id":1}"#)
        saga.report(.succeeded(output: "{}"), times: 2)
        #expect(saga.snapshot.status == .completed)
    }

    @Test func theSameAnswerAgainWritesNothing() {
        let saga = self.pending()
        for _ in 0..<10 {
            saga.wait()
            saga.answer(.pending(Self.job))
            #expect(saga.pause == .seconds(30))
        }
        saga.wait()
        saga.answer(.pending(PendingJob(output: Self.job.output, note: "nearly", pollAfter: .seconds(5))))
        #expect(saga.commit()?.kind == .progress)
        #expect(saga.pause == .seconds(5))
    }

    @Test func whoeverHasTheSagaAsks() {
        let saga = self.pending()
        saga.pass(.seconds(5))
        saga.adopt()
        saga.commit()
        #expect(saga.pause == .seconds(25))
        saga.wait()
        #expect(saga.answer(.succeeded(output: "{}"))?.kind == .poll)
    }

    @Test func silenceIsNoAnswer() {
        let saga = self.pending()
        saga.wait()
        for outcome in [
            SagaMachine.CallOutcome.abandoned, .notSent, .failed(StepError(.unavailable, reason: "AWAY", message: "")),
            .failed(StepError(.unknownOutcome, reason: "LOST", message: "")),
        ] {
            #expect(saga.answer(outcome)?.kind == .poll)
            #expect(saga.wait())
        }
        #expect(saga.snapshot.status == .running)
        saga.answer(.failed(StepError(.throttled(after: .seconds(99)), reason: "SLOW", message: "")))
        #expect(saga.pause == .seconds(99))
    }

    @Test func aJobThatFailedMayHaveLeftSomething() {
        let saga = self.pending()
        saga.wait()
        saga.report(.failed(StepError(.refused, reason: "SOLD_OUT", message: "")))
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.answer(.undone(.nothingFound))?.isInDoubt == true)
        saga.wait()
        saga.report(.undone(.nothingFound))
        #expect(saga.snapshot.status == .compensated)
    }

    /// The deadline stops the waiting, never the polling: the undo asks until the job is over.
    @Test func theDeadlineLeavesTheJobToTheUndo() {
        let saga = self.pending()
        saga.pass(.seconds(700))
        saga.commit()
        #expect(saga.snapshot.status == .compensating && saga.snapshot.outputs["CREATE"] == Self.job.output)
        for _ in 0..<3 {
            #expect(saga.answer(.undone(.pending(pollAfter: .seconds(20))))?.kind == .compensate)
            #expect(saga.pause == .seconds(20))
            saga.wait()
        }
        saga.pass(Self.settle)
        saga.report(.undone(.undone))
        #expect(saga.snapshot.status == .compensated)
        #expect(saga.snapshot.steps[1].compensationAttempts == 1)
    }

    @Test func itSleepsMeanwhile() {
        let saga = self.pending()
        #expect(saga.sleep(for: .seconds(30))?.wait.reason == .job)
        #expect(saga.answer(.pending(Self.job))?.kind == .poll)
        #expect(saga.pause == .seconds(30))
    }
}
