import Testing

@testable import SagaRuntime

/// What is not known of a step, and what ends it: nothing is believed that an unanswered call could still contradict.
@Suite struct DoubtTests {
    private static let refused = StepError(.refused, reason: "REFUSED", message: "no")
    private static let unavailable = StepError(.unavailable, reason: "AWAY", message: "away")
    private static let unknown = StepError(.unknownOutcome, reason: "AWAY", message: "lost reply")
    private static let taken = StepError(.conflict(redoing: "PORTS"), reason: "PORT_TAKEN", message: "taken")
    private let settle = Duration.seconds(10)

    // MARK: Questions

    /// Its process was stopped between the question and its answer.
    @Test func aQuestionSentBeforeTheSettleTimeProvesNothingHoweverLateItsAnswer() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.answer(.resolved(.absent), after: .seconds(60))
        #expect(saga.answer(.resolved(.absent))?.kind == .resolve)
        #expect(saga.commit()?.granted.events.last?.generation == 2)
    }

    @Test func theSameInTheUndo() {
        for found in [Undone.undone, .nothingFound] {
            let saga = MachineHarness.started()
            saga.answer(.failed(Self.unknown))
            saga.command(.cancel)
            saga.commit()
            saga.answer(.undone(found), after: .seconds(60))
            #expect(saga.snapshot.status == .compensating)
            saga.report(.undone(found))
            #expect(saga.snapshot.status == .compensated)
        }
    }

    @Test func theSameOfAConflict() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.report(.resolved(.repeatable))
        saga.wait()
        saga.answer(.failed(Self.taken), after: .seconds(60))
        guard case .call(let call, _) = saga.next() else { return #expect(Bool(false), "it believed the conflict") }
        #expect(call.kind == .execute && call.generation == 1)
        saga.report(.failed(Self.taken))
        #expect(saga.answer(.succeeded(output: "{}"))?.generation == 2)
    }

    // MARK: Several calls

    /// Two calls got no answer: what the undo destroys may be the first one's, and the second one's appears later.
    @Test func undoneOnceIsNotUndoneTwice() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.report(.resolved(.repeatable))
        saga.wait()
        saga.answer(.failed(Self.unknown))
        saga.command(.cancel)
        saga.commit()
        #expect(saga.answer(.undone(.undone))?.isInDoubt == true)
        #expect(saga.pause == self.settle)
        saga.wait()
        #expect(saga.report(.undone(.undone))?.isInDoubt == true)
        #expect(saga.snapshot.status == .compensated)
    }

    /// The second attempt made the device; what the first one sent may make it again once it is destroyed.
    @Test func successAfterALostReplyLeavesTheFirstCallInDoubt() {
        for isAdopted in [false, true] {
            let saga = MachineHarness.started()
            saga.answer(.failed(Self.unknown))
            saga.report(.resolved(.repeatable))
            saga.wait()
            saga.report(.succeeded(output: "{}"))
            #expect(saga.snapshot.steps[1].status == .succeeded)
            saga.report(.failed(Self.refused))
            if isAdopted {
                saga.adopt()
                saga.commit()
            }
            #expect(saga.answer(.undone(.undone))?.isInDoubt == true)
            #expect(saga.wait())
            saga.report(.undone(.nothingFound))
            #expect(saga.snapshot.status == .compensated)
        }
    }

    /// One call, no answer, and its effect was found: nothing else can come of it.
    @Test func whatOneCallMadeIsAllThatItMade() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.report(.resolved(.happened(output: "{}")))
        saga.report(.failed(Self.refused))
        #expect(saga.report(.undone(.undone))?.isInDoubt == false)
        #expect(saga.snapshot.status == .compensated)
    }

    // MARK: Clocks

    /// A failover to a standby whose clock is ahead ends no settle time.
    @Test func theDatabasesClockEndsNoSettleTime() {
        let saga = MachineHarness.started(timeout: .seconds(100_000))
        saga.answer(.failed(Self.unknown))
        saga.now = saga.now + .seconds(3600)
        saga.answer(.resolved(.absent))
        #expect(saga.pause == self.settle)
    }

    /// One whose clock is behind keeps nobody waiting.
    @Test func theDatabasesClockProlongsNoBackOff() {
        let saga = MachineHarness.started()
        saga.report(.failed(Self.unavailable))
        let pause = saga.pause ?? .zero
        saga.now = saga.now - .seconds(3600)
        #expect(saga.pause == pause)
        saga.adopt()
        saga.commit()
        #expect((saga.pause ?? .seconds(4000)) <= pause)
    }

    // MARK: Taking over

    /// A graceful stop leaves no doubt: an intent without a call is told from a call without an answer.
    @Test func whoGivesASagaBackSaysThatItsIntentIsUnsent() {
        let saga = MachineHarness.started()
        #expect(saga.machine.isUnsent)
        saga.adopt(isUnsent: true)
        saga.commit()
        #expect(saga.answer(.succeeded(output: "{}"))?.kind == .execute)
        saga.commit()
        // In the undo likewise.
        saga.report(.failed(Self.refused))
        #expect(saga.machine.isUnsent)
        saga.adopt(isUnsent: true)
        saga.commit()
        #expect(saga.answer(.undone(.undone))?.isRepeat == false)
    }

    @Test func whatWasSentIsNotUnsent() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        #expect(!saga.machine.isUnsent)
        saga.report(.resolved(.repeatable))
        // From here on it is in the events that a call went out, whatever is said of intents.
        #expect(saga.machine.isUnsent)
        saga.adopt(isUnsent: true)
        saga.commit()
        saga.wait()
        #expect(saga.answer(.resolved(.repeatable))?.kind == .resolve)
    }

    /// The events say that a call of CREATE was never answered; that QUOTA's intent is unsent is still worth saying.
    @Test func anIntentIsUnsentWhateverIsNotKnownOfAStepBefore() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.report(.resolved(.repeatable))
        saga.wait()
        saga.report(.succeeded(output: "{}"))
        #expect(saga.machine.isUnsent)
        saga.adopt(isUnsent: true)
        saga.commit()
        let call = saga.answer(.succeeded(output: "{}"))
        #expect(call?.kind == .execute && call?.step == 3)
    }

    /// A back-off after a definite failure is no doubt: nobody has called since, and nobody may before a new intent.
    @Test func aBackOffAfterADefiniteFailureIsNoDoubt() {
        let saga = MachineHarness.started()
        saga.report(.failed(Self.unavailable))
        saga.adopt()
        saga.commit()
        saga.pass(.seconds(3600))
        saga.adopt()
        saga.commit()
        #expect(saga.machine.isUnsent)
        saga.now = saga.snapshot.deadline - .seconds(1)
        let intent = saga.commit()
        #expect(intent?.kind == .intent && intent?.granted.events.map(\.type) == [.stepStarted])
        let call = saga.answer(.succeeded(output: "{}"))
        #expect(call?.kind == .execute && call?.attempt == 2 && call?.generation == 1)
    }

    /// An intent is not progress: what crashes its server when it calls is still counted.
    @Test func anIntentClearsNoCount() {
        let saga = MachineHarness.started()
        saga.report(.failed(Self.unavailable))
        saga.adopt(adoptions: 3)
        saga.commit()
        saga.wait()
        #expect(saga.commit()?.kind == .intent)
        #expect(saga.machine.adoptions == 3)
    }

    @Test func aLateSagaWhoseIntentIsUnsentHasNothingToUndo() {
        let saga = MachineHarness.started(timeout: .seconds(5))
        saga.pass(.seconds(5))
        saga.commit()
        #expect(saga.snapshot.status == .compensated)
    }

    // MARK: Not sent

    /// It waited for a connection, say, and was given up before it had one: no attempt, and no doubt.
    @Test func whatWasNeverSentIsNoAttempt() {
        let saga = MachineHarness.started()
        for _ in 0..<20 {
            saga.answer(.notSent)
            #expect(saga.wait())
        }
        #expect(saga.types.filter { $0 == .stepRetrying }.isEmpty && saga.machine.isUnsent)
        #expect(saga.answer(.succeeded(output: "{}"))?.attempt == 1)
    }

    @Test func whatACallKnowsOfItsRequests() {
        let error = StepError(.leaseLost, reason: "LEASE_LOST", message: "")
        #expect(SagaMachine.CallOutcome.abandoned.knowing(wasSent: false).isNotSent)
        #expect(SagaMachine.CallOutcome.failed(error).knowing(wasSent: false).isNotSent)
        // An earlier request of the same call did its part.
        #expect(SagaMachine.CallOutcome.failed(error).knowing(wasSent: true).errorClass == .unknownOutcome)
        #expect(SagaMachine.CallOutcome.failed(Self.unknown).knowing(wasSent: false).errorClass == .unavailable)
        #expect(SagaMachine.CallOutcome.failed(Self.refused).knowing(wasSent: false).errorClass == .refused)
    }

    // MARK: Undo

    /// A gateway that says no to everybody, a token that has ended: an undo goes on, only more slowly.
    @Test func anUndoOutlastsRefusals() {
        for errorClass in [StepError.Class.refused, .invalid, .notFound, .conflict(redoing: "PORTS")] {
            let saga = MachineHarness.started()
            saga.report(.succeeded(output: "{}"))
            saga.report(.failed(Self.refused))
            saga.report(.failed(StepError(errorClass, reason: "QUOTA_REFUSED", message: "no")))
            #expect(saga.types.last == .stepRetrying)
            #expect((saga.pause ?? .zero) > .seconds(1))
            saga.wait()
            saga.report(.undone(.undone))
            #expect(saga.snapshot.status == .compensated)
        }
    }

    @Test func anUndoParksOnceItHasBeenRefusedForHours() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.report(.failed(Self.refused))
        let start = saga.now
        while saga.snapshot.status == .compensating {
            saga.report(.failed(Self.refused))
            saga.wait()
        }
        #expect(saga.snapshot.status == .parked && saga.now - start > .seconds(3600))
    }
}

extension SagaMachine.CallOutcome {
    fileprivate var isNotSent: Bool {
        if case .notSent = self { true } else { false }
    }

    fileprivate var errorClass: StepError.Class? {
        if case .failed(let error) = self { error.errorClass } else { nil }
    }
}
