@testable import SagaRuntime
import Testing

/// What a saga that slept still knows, and what it does not.
struct SagaSleepTests {
    private static let unknown = StepError(.unknownOutcome, reason: "LOST", message: "")
    private static let unavailable = StepError(.unavailable, reason: "AWAY", message: "")
    private let settle = Duration.seconds(10)

    @Test func timeAsleepCountsInTheSameEpoch() {
        for isSameEpoch in [true, false] {
            let saga = MachineHarness.started()
            saga.answer(.failed(Self.unknown))
            saga.answer(.resolved(.absent))
            #expect(saga.machine.waiting(now: saga.moment)?.reason == .settleTime)
            #expect(saga.sleep(for: self.settle, isSameEpoch: isSameEpoch)?.doubtUntil == MachineHarness.start)
            #expect(saga.answer(.resolved(.absent))?.kind == .resolve)
            if isSameEpoch {
                #expect(saga.commit()?.granted.events.last?.generation == 2)
            } else {
                #expect(saga.pause == self.settle)
            }
        }
    }

    @Test func theSameInTheUndo() {
        for isSameEpoch in [true, false] {
            let saga = MachineHarness.started()
            saga.answer(.failed(Self.unknown))
            saga.command(.cancel)
            saga.answer(.undone(.undone))
            saga.sleep(for: self.settle, isSameEpoch: isSameEpoch)
            saga.report(.undone(.nothingFound))
            #expect((saga.snapshot.status == .compensated) == isSameEpoch)
        }
    }

    @Test func aBackOffGoesOnAsleep() {
        let saga = MachineHarness.started()
        saga.report(.failed(Self.unavailable))
        let pause = saga.pause ?? .zero
        #expect(saga.sleep(for: pause / 2)?.wait.reason == .backOff)
        #expect(saga.pause == pause - pause / 2)
        saga.wait()
        #expect(saga.answer(.succeeded(output: "{}"))?.attempt == 2)
    }

    /// An intent that is unsent is so at one version alone: the version is raised before anything is sent, without an event.
    @Test func wakingWritesNoEvent() {
        let saga = MachineHarness.started()
        let (count, version) = (saga.snapshot.lastSequence, saga.machine.version)
        guard case .call(let call, _) = saga.next() else { return #expect(Bool(false), "no call is due") }
        saga.machine.postpone(call, by: .seconds(30), for: "docker", isLong: true, now: saga.moment)
        #expect(saga.sleep(for: .seconds(100))?.isUnsent == true)
        #expect(saga.snapshot.lastSequence == count && saga.machine.version == version + 4)
        #expect(saga.answer(.succeeded(output: "{}"))?.kind == .execute)
    }

    /// A dead dependency: nobody knows for how long, and whatever the back-off said is void once it is back.
    @Test func theBackOffIsVoidOnceTheDependencyIsBack() {
        for isBack in [true, false] {
            let saga = MachineHarness.started()
            saga.report(.succeeded(output: "{}"))
            saga.command(.cancel)
            saga.report(.failed(Self.unavailable))
            let pause = saga.pause ?? .zero
            #expect(pause > .zero)
            saga.machine.postpone(
                .undo(1), until: saga.uptime + .seconds(60), SagaWait(reason: .breakerOpen, dependency: "docker"))
            let sleep = saga.sleep(for: .zero, dependency: isBack ? "CREATE" : "QUOTA")
            #expect(sleep?.wait == SagaWait(reason: .breakerOpen, dependency: "docker"))
            #expect(saga.pause == (isBack ? nil : pause))
        }
    }

    /// However long a dependency is down, that uses up no attempt; nor is anything written each time.
    @Test func aProbeThatFailsIsNoAttempt() {
        for outcome: SagaMachine.CallOutcome in [.failed(Self.unavailable), .failed(Self.unknown), .abandoned] {
            let saga = MachineHarness.started()
            saga.report(.succeeded(output: "{}"))
            saga.command(.cancel)
            saga.adopt(adoptions: 3, isUnsent: true)
            saga.commit()
            let wasUnsent = saga.machine.isUnsent
            let (count, attempts) = (saga.snapshot.lastSequence, saga.snapshot.steps[1].compensationAttempts)
            for _ in 0..<200 {
                guard case .call(var call, _) = saga.next() else { return #expect(Bool(false), "no call is due") }
                call.isProbe = true
                saga.machine.callReturned(call, outcome, asked: saga.moment, now: saga.moment)
            }
            #expect(saga.snapshot.lastSequence == count && saga.snapshot.steps[1].compensationAttempts == attempts)
            #expect(saga.machine.adoptions == 0)
            // What was sent without an answer is not forgotten.
            if case .failed(let error) = outcome, error.errorClass == .unavailable {
                #expect(wasUnsent && saga.machine.isUnsent)
            } else {
                #expect(!saga.machine.isUnsent && saga.machine.doubt(.undo(1)).isSent)
            }
            saga.report(.undone(.undone))
            #expect(saga.snapshot.status == .compensated)
        }
    }

    /// A dead dependency keeps nothing from being tried that has to do with another.
    @Test func whatWaitsForTwoThingsLooksAfterBoth() {
        func waiting(_ waits: [(StepSide, Duration, SagaWait)]) -> (SagaWait?, Timestamp) {
            let saga = MachineHarness.started()
            saga.report(.succeeded(output: "{}"))
            saga.command(.cancel)
            for (side, pause, wait) in waits { saga.machine.postpone(side, until: saga.uptime + pause, wait) }
            return (saga.machine.waiting(now: saga.moment), saga.moment.time)
        }
        let docker = SagaWait(reason: .breakerOpen, dependency: "docker")
        let quota = SagaWait(reason: .breakerOpen, dependency: "user-service")
        let backOff = SagaWait(reason: .backOff)
        let one = waiting([(.undo(1), .seconds(1), docker), (.undo(2), .seconds(7), docker)])
        #expect(one.0 == docker)
        let both = waiting([(.undo(1), .seconds(1), docker), (.undo(2), .seconds(7), quota)])
        #expect(both.0?.until == both.1 + .seconds(30) && both.0?.dependency == "docker")
        let timed = waiting([(.undo(1), .seconds(1), docker), (.undo(2), .seconds(100), backOff)])
        #expect(timed.0?.until == timed.1 + .seconds(100) && timed.0?.dependency == "docker")
    }

    /// A dead dependency doesn't put off the deadline of what goes forward.
    @Test func theDeadlineHoldsAsleep() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        guard case .call(let question, _) = saga.next() else { return #expect(Bool(false), "nothing is asked") }
        saga.machine.postpone(question, by: .seconds(1), for: "docker", isLong: true, now: saga.moment)
        let wait = saga.machine.waiting(now: saga.moment)
        #expect(wait?.dependency == "docker" && wait?.until == saga.snapshot.deadline)
    }

    @Test func sleepingNeitherClearsNorRaisesTheCountOfAdoptions() {
        let saga = MachineHarness.started()
        saga.report(.failed(Self.unavailable))
        saga.adopt(adoptions: 3)
        saga.commit()
        guard let wait = saga.machine.waiting(now: saga.moment) else {
            return #expect(Bool(false), "it waits for nothing")
        }
        #expect(saga.machine.sleepRecord(wait, now: saga.moment).adoptions == 3)
    }

    @Test func whatIsOverOrParkedNeverSleeps() {
        let saga = MachineHarness.started()
        saga.report(.failed(StepError(.undecidable, reason: "WHO_KNOWS", message: "")))
        #expect(saga.machine.waiting(now: saga.moment) == nil)
    }
}
