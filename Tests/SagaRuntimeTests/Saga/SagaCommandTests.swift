@testable import SagaRuntime
import Testing

/// What commands do to sagas, wherever they meet them.
struct SagaCommandTests {
    private static let undecidable = StepError(.undecidable, reason: "WHO_KNOWS", message: "")
    private static let refused = StepError(.refused, reason: "NO", message: "no")

    @Test(arguments: [SagaCommand.Kind.cancel, .compensate])
    func turnsBackWhatGoesForward(_ kind: SagaCommand.Kind) {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        let record = saga.command(kind)
        #expect(record?.granted.events.first?.type == .commandReceived)
        #expect(record?.granted.events.first?.message == "by ann: a test")
        #expect(record?.granted.sideEffects.first?.name == "command_consume")
        #expect(saga.snapshot.failure?.cause == .cancelled)
        saga.report(.undone(.undone))
        #expect(saga.snapshot.status == .compensated)
    }

    /// Issued by a newer program, or by hand: it is consumed, or its saga could never end.
    @Test func whatIsNotKnownHasNoEffect() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        let record = saga.command(.unknown)
        #expect(record?.granted.events.map(\.type) == [.commandReceived])
        #expect(record?.granted.events.first?.message == "by ann: a test (UNKNOWN_KIND)")
        #expect(saga.snapshot.status == .running && saga.machine.commands.isEmpty)
    }

    @Test func aResultInHandIsNotLost() {
        let saga = MachineHarness.started()
        saga.answer(.succeeded(output: #"{"id":1}"#))
        saga.machine.receive([saga.newCommand(.cancel)])
        saga.commit()
        #expect(saga.snapshot.steps[1].status == .succeeded)
        saga.commit()
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.snapshot.outputs["CREATE"] == #"{"id":1}"#)
    }

    /// The last step's success ends the saga: the command came too late, and says so before the end.
    @Test func anEndAnswersWhatItKnows() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"), times: 2)
        saga.answer(.succeeded(output: "{}"))
        saga.machine.receive([saga.newCommand(.cancel)])
        let record = saga.commit()
        #expect(record?.commandsSeen == 1)
        #expect(record?.granted.events.map(\.type) == [.stepSucceeded, .commandReceived, .sagaCompleted])
        #expect(record?.granted.events[1].flags == .noEffect)
        #expect(saga.snapshot.status == .completed && saga.machine.commands.isEmpty)
    }

    @Test func onlyWhatEndsOrParksOrSleepsCompares() {
        let saga = MachineHarness.started()
        #expect(saga.report(.succeeded(output: "{}")) != nil)
        saga.answer(.succeeded(output: "{}"))
        #expect(saga.commit()?.commandsSeen == nil)
        saga.answer(.failed(Self.undecidable))
        #expect(saga.commit()?.commandsSeen == 0)
    }

    @Test func aParkedSagaGoesOnWhereItStopped() {
        let saga = MachineHarness.started()
        saga.report(.failed(Self.undecidable))
        #expect(saga.snapshot.status == .parked && saga.snapshot.failure?.reason == "WHO_KNOWS")
        saga.adopt()
        saga.command(.resume)
        #expect(saga.events.suffix(2).map(\.type) == [.commandReceived, .sagaResumed])
        #expect(saga.snapshot.status == .running && saga.snapshot.failure == nil)
        saga.report(.resolved(.happened(output: "{}")))
        #expect(saga.snapshot.steps[1].status == .succeeded)
    }

    @Test func aSagaParkedOnItsWayForwardIsTurnedBack() {
        let saga = MachineHarness.started()
        saga.report(.failed(Self.undecidable))
        saga.command(.compensate)
        #expect(saga.snapshot.status == .compensating && saga.snapshot.failure?.cause == .cancelled)
        #expect(saga.answer(.undone(.nothingFound))?.kind == .compensate)
    }

    private func parkedInTheUndo() -> MachineHarness {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.command(.cancel)
        saga.report(.failed(Self.undecidable))
        saga.commit()
        return saga
    }

    @Test func anUndoThatFailedIsTriedAgain() {
        let saga = self.parkedInTheUndo()
        #expect(saga.snapshot.status == .parked)
        saga.command(.resume)
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.report(.undone(.undone))?.kind == .compensate)
        #expect(saga.snapshot.status == .compensated)
    }

    @Test func anUndoThatWasDoneByHandIsSkipped() {
        let saga = self.parkedInTheUndo()
        saga.command(.skip)
        #expect(saga.snapshot.steps[1].status == .skipped)
        #expect(saga.snapshot.status == .compensated)
        #expect(saga.sideEffects.contains("remove") && saga.sideEffects.contains("release"))
        #expect(saga.snapshot.stepsDone == 0)
    }

    // MARK: What is known when a saga parks

    @Test(arguments: [SagaCommand.Kind.cancel, .compensate])
    func whatWouldParkIsTurnedBackIfSomebodyWishesThat(_ kind: SagaCommand.Kind) {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.undecidable))
        saga.machine.receive([saga.newCommand(kind)])
        let record = saga.commit()
        #expect(record?.granted.events.map(\.type).prefix(3) == [.commandReceived, .stepFailed, .sagaCompensating])
        #expect(record?.granted.answers == [SagaCommand.Answer(kind: kind, result: .done)])
        // What nobody can decide may have had an effect.
        #expect(record?.granted.events[1].flags == .outcomeUnknown)
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.answer(.undone(.nothingFound))?.isInDoubt == true)
    }

    @Test func poisonIsTurnedBackIfSomebodyWishesThat() {
        let saga = MachineHarness.started()
        saga.adopt(adoptions: 7, isPoisoned: true)
        saga.command(.compensate)
        #expect(saga.snapshot.status == .compensating)
    }

    /// A resume that was given before that has nothing to resume; it is answered, or nobody would ever look at it.
    @Test func whatParksAnswersAResume() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.undecidable))
        saga.machine.receive([saga.newCommand(.resume)])
        let record = saga.commit()
        #expect(record?.granted.answers == [SagaCommand.Answer(kind: .resume, result: .tooLate)])
        #expect(record?.commandsSeen == 1)
        #expect(saga.snapshot.status == .parked)
    }

    @Test func anUndoThatParksHasNothingToTurnBack() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.command(.cancel)
        saga.answer(.failed(Self.undecidable))
        saga.machine.receive([saga.newCommand(.compensate)])
        let record = saga.commit()
        #expect(record?.granted.answers == [SagaCommand.Answer(kind: .compensate, result: .noEffect)])
        #expect(saga.snapshot.status == .parked)
    }

    // MARK: Twice

    /// Two of them were given for the same undo that failed.
    @Test func theSecondSkipDoesNotSkipTheNextStep() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"), times: 2)
        saga.command(.cancel)
        // Both undos fail; the newest step's is skipped.
        for _ in 0..<4 {
            saga.report(.failed(Self.undecidable))
            saga.commit()
        }
        #expect(saga.snapshot.status == .parked)
        let seen = saga.snapshot.lastSequence
        func skip(at sequence: Int) -> [SagaCommand.Result]? {
            saga.command(.skip, at: sequence)?.granted.answers.map(\.result)
        }
        func skipped() -> Int { saga.snapshot.steps.count { $0.status == .skipped } }
        #expect(skip(at: seen) == [.done])
        while saga.snapshot.status != .parked {
            saga.report(.failed(Self.undecidable))
            saga.commit()
        }
        #expect(skip(at: seen) == [.noEffect] && skipped() == 1)
        #expect(skip(at: saga.snapshot.lastSequence) == [.done] && skipped() == 2)
    }

    /// The first one's resume has parked again meanwhile.
    @Test func theSecondResumeDoesNotResumeWhatParkedAnew() {
        let saga = MachineHarness.started()
        saga.report(.failed(Self.undecidable))
        let seen = saga.snapshot.lastSequence
        saga.command(.resume, at: seen)
        saga.report(.resolved(.undecidable(Self.undecidable)))
        #expect(saga.snapshot.status == .parked)
        #expect(saga.command(.resume, at: seen)?.granted.answers.map(\.result) == [.noEffect])
        #expect(saga.command(.skip, at: seen)?.granted.answers.map(\.result) == [.notParked])
        #expect(saga.snapshot.status == .parked)
        #expect(saga.command(.resume, at: saga.snapshot.lastSequence)?.granted.answers.map(\.result) == [.done])
        #expect(saga.snapshot.status == .running)
    }

    // MARK: What helps

    @Test func whatHelpsIsWhatIsAccepted() {
        let saga = MachineHarness.started()
        func helps() -> [SagaCommand.Kind] { saga.machine.definition.helpfulCommands(saga.snapshot) }
        #expect(helps() == [.compensate])
        saga.report(.failed(Self.undecidable))
        #expect(helps() == [.resume, .compensate])
        saga.command(.compensate)
        #expect(helps() == [])
        saga.report(.failed(Self.undecidable))
        saga.commit()
        #expect(saga.snapshot.status == .parked && helps() == [.resume, .skip])
        saga.command(.skip)
        #expect(saga.snapshot.status == .compensated && helps() == [])
    }

    @Test func whatIsInQuarantineIsResumed() {
        let saga = MachineHarness.started()
        var snapshot = saga.snapshot
        snapshot.isQuarantined = true
        #expect(saga.machine.definition.helpfulCommands(snapshot) == [.resume, .compensate])
    }

    @Test func commandsAreConsumedOnceAndInOrder() {
        let saga = MachineHarness.started()
        let cancel = saga.newCommand(.cancel)
        saga.machine.receive([cancel, cancel])
        saga.machine.receive([cancel])
        saga.commit()
        saga.machine.receive([cancel])
        #expect(saga.machine.commands.isEmpty && saga.snapshot.commandsReceived == 1)
    }

    @Test func aResumeEndsABackOff() {
        let saga = MachineHarness.started()
        saga.report(.failed(StepError(.unavailable, reason: "AWAY", message: "")))
        #expect(saga.pause != nil)
        saga.command(.resume)
        #expect(saga.answer(.succeeded(output: "{}"))?.attempt == 2)
    }

    @Test func whatIsTurningBackAlreadyIsLeftAlone() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.command(.cancel)
        let record = saga.command(.compensate)
        #expect(record?.granted.events.map(\.type) == [.commandReceived])
        #expect(record?.granted.events.first?.flags == .noEffect)
    }
}
