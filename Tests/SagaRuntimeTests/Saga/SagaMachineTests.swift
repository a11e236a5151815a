import Testing

@testable import SagaRuntime

/// The pure state machine: every decision of a saga, with neither database nor time.
@Suite struct SagaMachineTests {
    private static let refused = StepError(.refused, reason: "REFUSED", message: "no")
    private static let unavailable = StepError(.unavailable, reason: "PROVIDER_UNAVAILABLE", message: "away")
    private static let unknown = StepError(.unknownOutcome, reason: "PROVIDER_UNAVAILABLE", message: "lost reply")

    @Test func fiveStepsTakeFourFlushes() {
        let saga = MachineHarness()
        var flushes = 0
        if saga.commit() != nil { flushes += 1 }
        for step in [1, 3, 4] {
            #expect(saga.answer(.succeeded(output: "{}"))?.step == step)
            if saga.commit() != nil { flushes += 1 }
        }
        #expect(flushes == 4)
        #expect(saga.snapshot.status == .completed)
        #expect(saga.snapshot.stepIndex == 4)
        #expect(saga.snapshot.currentStep == "START")
        #expect(saga.sideEffects == ["running"])
        guard case .finished = saga.next() else { return #expect(Bool(false), "not finished") }
    }

    @Test func intentIsDurableBeforeTheCall() {
        let saga = MachineHarness()
        guard case .write(let first) = saga.next() else { return #expect(Bool(false)) }
        #expect(first.granted.events.last?.type == .stepStarted)
        #expect(first.granted.events.last?.step == 1)
        saga.commit()
        #expect(saga.snapshot.steps[1].isInDoubt)
    }

    @Test func sequencesHaveNoGaps() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"), times: 3)
        #expect(saga.events.map(\.sequence) == Array(1...UInt32(saga.events.count)))
        #expect(saga.events.last?.stepsDone == 5)
    }

    @Test func refusedPortsEndTheSagaInTheSameFlush() {
        let saga = MachineHarness()
        saga.commit(granted: false)
        #expect(saga.snapshot.status == .compensated)
        #expect(saga.snapshot.failure?.reason == "PORTS_EXHAUSTED")
        #expect(saga.types == [.sagaStarted, .stepStarted, .stepFailed, .sagaCompensating, .sagaCompensated])
    }

    @Test func skippedStepTakesNoFlush() {
        let saga = MachineHarness.started(MachineHarness.definition(quotaNeeded: false))
        saga.report(.succeeded(output: "{}"))
        #expect(saga.snapshot.steps[3].status == .skipped)
        #expect(saga.snapshot.steps[4].status == .running)
    }

    @Test func definiteRefusalUndoesWhatWasDone() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.report(.failed(Self.refused))
        #expect(saga.snapshot.status == .compensating)
        // Nothing of QUOTA can exist, so the undo begins at the record, which is pure database, and the device.
        #expect(saga.report(.undone(.undone))?.step == 1)
        #expect(saga.snapshot.status == .compensated)
        #expect(saga.sideEffects == ["deleting", "remove", "release"])
        #expect(saga.snapshot.steps[3].compensationAttempts == 0)
    }

    @Test func retriesAreDurableAndBounded() {
        let saga = MachineHarness.started()
        var attempts: [Int] = []
        for _ in 0..<4 {
            saga.wait()
            guard let call = saga.answer(.failed(Self.unavailable)) else { break }
            attempts.append(call.attempt)
            saga.commit()
        }
        #expect(attempts == [1, 2, 3, 4])
        #expect(saga.snapshot.status == .compensated)
        #expect(saga.types.filter { $0 == .stepRetrying }.count == 3)
        #expect(saga.snapshot.failure?.reason == "PROVIDER_UNAVAILABLE")
    }

    @Test func throttlingIsHonoured() {
        let saga = MachineHarness.started()
        saga.report(.failed(StepError(.throttled(after: .seconds(7)), reason: "PROVIDER_UNAVAILABLE", message: "")))
        #expect(saga.snapshot.steps[1].retryAt == saga.now + .seconds(7))
    }

    @Test func lostReplyIsAskedAfterAndAdopted() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        #expect(saga.report(.resolved(.happened(output: "{\"id\":1}")))?.kind == .resolve)
        #expect(saga.snapshot.steps[1].status == .succeeded)
        #expect(saga.snapshot.steps[1].attempts == 1)
    }

    @Test func absentCountsOnlyAfterTheSettleTime() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.answer(.resolved(.absent))
        #expect(saga.pause == .seconds(10))
        saga.wait()
        saga.answer(.resolved(.absent))
        // Only now does the generation rise, and durably so, before the next attempt.
        guard case .write(let record) = saga.next() else { return #expect(Bool(false)) }
        #expect(record.granted.events.last?.type == .stepRetrying)
        #expect(record.granted.events.last?.generation == 2)
        saga.commit()
        saga.wait()
        #expect(saga.answer(.succeeded(output: "{}"))?.generation == 2)
    }

    @Test func repeatableKeepsTheKey() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.report(.resolved(.repeatable))
        saga.wait()
        let call = saga.answer(.succeeded(output: "{}"))
        #expect(call?.generation == 1)
        #expect(call?.attempt == 2)
    }

    @Test func failureSaysWhyNobodyKnows() {
        let saga = MachineHarness.started()
        for _ in 0..<4 {
            saga.answer(.failed(StepError(.unknownOutcome, reason: "PROVIDER_UNAVAILABLE", message: "answered 500")))
            saga.report(.resolved(.repeatable))
            saga.wait()
        }
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.snapshot.failure?.message == "the outcome of attempt 4 is unknown: answered 500")
    }

    /// An attempt whose reply was lost may still take effect after a later attempt was refused.
    @Test func refusalAfterALostReplyIsStillInDoubt() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.report(.resolved(.repeatable))
        saga.wait()
        saga.report(.failed(Self.refused))
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.snapshot.steps[1].isInDoubt)
        saga.answer(.undone(.nothingFound))
        guard case .wait = saga.next() else { return #expect(Bool(false), "believed an early not-found") }
        saga.wait()
        saga.report(.undone(.nothingFound))
        #expect(saga.snapshot.status == .compensated)
    }

    @Test func undecidableParks() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.report(.resolved(.undecidable(StepError(.undecidable, reason: "QUOTA_UNAVAILABLE", message: "?"))))
        #expect(saga.snapshot.status == .parked)
        #expect(saga.snapshot.currentStep == "CREATE")
        #expect(saga.snapshot.failure?.reason == "QUOTA_UNAVAILABLE")
    }

    /// A key that was revoked for a minute says nothing about what was asked after. Found by the simulator.
    @Test func refusedQuestionIsAskedAgain() {
        for error in [Self.refused, StepError(.notFound, reason: "GONE", message: "404")] {
            let saga = MachineHarness.started()
            saga.answer(.failed(Self.unknown))
            saga.report(.failed(error))
            #expect(saga.snapshot.status == .running)
            saga.wait()
            saga.report(.resolved(.happened(output: "{}")))
            #expect(saga.snapshot.steps[1].status == .succeeded)
        }
    }

    /// What nobody can be asked about, and the definition takes for done, is recorded as done, with what was assumed.
    @Test func assumptionsAreRecordedWithTheirText() {
        let assumption = StepError(.undecidable, reason: "QUOTA_UNAVAILABLE", message: "assumed")
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.report(.resolved(.assumed(output: "{}", assumption)))
        #expect(saga.snapshot.steps[1].status == .succeeded)
        let succeeded = saga.events.last { $0.type == .stepSucceeded && $0.step == "CREATE" }
        #expect(succeeded?.reason == "QUOTA_UNAVAILABLE" && succeeded?.message == "assumed")
        // It is said of that step alone.
        saga.report(.succeeded(output: "{}"))
        #expect(saga.events.last { $0.type == .stepSucceeded }?.message == "")
        saga.report(.failed(Self.refused))
        saga.report(.undone(.assumed(assumption)), times: 2)
        #expect(saga.snapshot.status == .compensated)
        let undone = saga.events.filter { $0.type == .stepCompensated && $0.message == "assumed" }
        #expect(undone.map(\.step) == ["QUOTA", "CREATE"])
    }

    @Test func takenPortIsReplacedUnderANewGeneration() {
        let saga = MachineHarness.started()
        saga.answer(.failed(StepError(.conflict(redoing: "PORTS"), reason: "PORT_TAKEN", message: "taken")))
        guard case .write(let record) = saga.next() else { return #expect(Bool(false)) }
        #expect(record.databaseStep?.name == "ports")
        saga.commit()
        let call = saga.answer(.succeeded(output: "{}"))
        #expect(call?.step == 1)
        #expect(call?.generation == 2)
        saga.commit()
        #expect(saga.snapshot.steps[1].status == .succeeded)
    }

    @Test func noOtherPairEndsTheSaga() {
        let saga = MachineHarness.started()
        saga.answer(.failed(StepError(.conflict(redoing: "PORTS"), reason: "PORT_TAKEN", message: "taken")))
        saga.commit(granted: false)
        #expect(saga.snapshot.status == .compensated)
        #expect(saga.snapshot.failure?.reason == "PORTS_EXHAUSTED")
        #expect(saga.snapshot.failure?.step == "PORTS")
        // Nothing of it is left running, or counted as done.
        #expect(saga.snapshot.steps.map(\.status).prefix(2) == [.failed, .failed])
        #expect(saga.snapshot.stepsDone == 0)
    }

    @Test func deadlineDuringACallUndoesTheStepInDoubt() {
        let saga = MachineHarness.started(timeout: .seconds(5))
        guard case .call(_, .seconds(5)) = saga.next() else { return #expect(Bool(false)) }
        saga.answer(.abandoned, after: .seconds(5))
        saga.commit()
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.snapshot.failure?.cause == .timedOut)
        #expect(saga.snapshot.failure?.reason == "TIMED_OUT")
        #expect(saga.snapshot.steps[1].isInDoubt)
    }

    @Test func successAfterTheDeadlineIsUndoneToo() {
        let saga = MachineHarness.started(timeout: .seconds(5))
        saga.answer(.succeeded(output: "{}"), after: .seconds(6))
        saga.commit()
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.snapshot.steps[1].output == "{}")
        saga.report(.undone(.undone))
        #expect(saga.snapshot.status == .compensated)
    }

    @Test func adoptedSagaAsksBeforeItRepeats() {
        let saga = MachineHarness.started()
        saga.adopt()
        #expect(saga.commit()?.granted.events.first?.type == .sagaAdopted)
        #expect(saga.answer(.resolved(.repeatable))?.kind == .resolve)
        // A crash is no failure of the provider: the same attempt, under the same key, without a flush.
        let call = saga.answer(.succeeded(output: "{}"))
        #expect(call?.kind == .execute)
        #expect(call?.attempt == 1)
        #expect(call?.generation == 1)
    }

    /// A, dead by now, has sent a request that its provider is still busy with. B, who took the saga up, finds nothing, sends
    /// the same again and is refused: what A sent may appear all the same, so the step is undone as one in doubt.
    @Test func refusalOfARepeatedCallLeavesTheFirstOneInDoubt() {
        for error in [Self.refused, Self.unavailable] {
            let saga = MachineHarness.started()
            saga.adopt()
            saga.commit()
            saga.answer(.resolved(.repeatable))
            while saga.snapshot.status == .running {
                saga.report(.failed(error))
                if saga.snapshot.status == .running { saga.wait() }
            }
            #expect(saga.snapshot.steps[1].status == .compensating && saga.snapshot.steps[1].isInDoubt)
            let call = saga.answer(.undone(.nothingFound))
            #expect(call?.isInDoubt == true)
            // "Not found" is believed only after the settle time, and the ports are held until then.
            #expect(!saga.sideEffects.contains("release") && saga.wait())
            saga.report(.undone(.nothingFound))
            #expect(saga.snapshot.status == .compensated && saga.sideEffects.contains("release"))
        }
    }

    /// A reply was lost, and the repeated call finds a stranger on its port: a new generation at once would leave the first
    /// call's late effect to nobody. The same call again, once that is settled, tells.
    @Test func conflictAfterALostReplyIsRedoneOnceItIsSettled() {
        let taken = StepError(.conflict(redoing: "PORTS"), reason: "PORT_TAKEN", message: "")
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        let sent = saga.now
        saga.report(.resolved(.repeatable))
        saga.wait()
        saga.answer(.failed(taken))
        #expect(saga.wait())
        #expect(saga.now == sent + .seconds(10))
        #expect(saga.report(.failed(taken))?.generation == 1)
        #expect(saga.snapshot.status == .running)
        #expect(saga.snapshot.steps[1].doubt != .sent)
        #expect(saga.answer(.succeeded(output: "{}"))?.generation == 2)
    }

    /// The first call's effect came late: it is adopted.
    @Test func conflictAfterALostReplyFindsTheLateEffect() {
        let saga = MachineHarness.started()
        saga.adopt()
        saga.commit()
        saga.answer(.resolved(.repeatable))
        saga.answer(.failed(StepError(.conflict(redoing: "PORTS"), reason: "PORT_TAKEN", message: "")))
        #expect(saga.wait())
        saga.report(.succeeded(output: "{}"))
        #expect(saga.snapshot.steps[1].status == .succeeded && saga.snapshot.steps[1].generation == 1)
    }

    /// The same once the lost call is known to have come to nothing: its generation is over, and so is the doubt.
    @Test func conflictAfterASettledGenerationIsRedone() {
        let saga = MachineHarness.started()
        saga.answer(.failed(Self.unknown))
        saga.pass(.seconds(11))
        saga.report(.resolved(.absent))
        #expect(saga.snapshot.steps[1].generation == 2 && saga.snapshot.steps[1].doubt != .sent)
        saga.wait()
        saga.report(.failed(StepError(.conflict(redoing: "PORTS"), reason: "PORT_TAKEN", message: "")))
        #expect(saga.snapshot.status == .running)
        #expect(saga.answer(.succeeded(output: "{}"))?.generation == 3)
    }

    /// A call that came back, and was recorded, is progress, whatever it said; one that crashes its server is never recorded.
    /// Undos that wait for their dependency would otherwise be parked by a few restarts.
    @Test func recordedRetriesOfTheUndoAreProgress() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.report(.failed(Self.refused))
        saga.adopt(adoptions: 3)
        saga.commit()
        #expect(saga.machine.adoptions == 3)
        saga.answer(.failed(Self.unavailable))
        #expect(saga.commit()?.adoptions == 0)
    }

    /// A definite failure withdraws the intent: whoever takes the undo up, however late, knows that nothing was sent since.
    @Test func undoTakenUpInItsBackOffIsNoRepeat() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.report(.failed(Self.refused))
        saga.report(.failed(Self.unavailable))
        saga.adopt()
        saga.commit()
        saga.pass(.seconds(3600))
        #expect(saga.commit()?.kind == .intent)
        guard case .call(let due, _) = saga.next() else { return #expect(Bool(false), "no undo is due") }
        #expect(!due.isRepeat && due.attempt == 2)
        // Its intent is durable, so its last owner may have called.
        saga.adopt()
        saga.commit()
        #expect(saga.report(.failed(Self.unavailable))?.isRepeat == true)
        // What that one sent stays in doubt, though the repeated call was answered.
        saga.adopt()
        saga.commit()
        #expect(saga.wait())
        #expect(saga.answer(.undone(.undone))?.isRepeat == true)
    }

    @Test func adoptionsCountUntilThereIsProgress() {
        let saga = MachineHarness.started()
        saga.adopt(adoptions: 3)
        #expect(saga.commit()?.adoptions == 3)
        saga.answer(.resolved(.happened(output: "{}")))
        #expect(saga.commit()?.adoptions == 0)
    }

    @Test func poisonedSagaParks() {
        let saga = MachineHarness.started()
        saga.adopt(adoptions: 5, isPoisoned: true)
        saga.commit()
        #expect(saga.snapshot.status == .parked)
        #expect(saga.snapshot.failure?.reason == "POISON")
    }

    @Test func undoIsRetriedWithItsOwnPolicy() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.report(.failed(Self.refused))
        saga.report(.failed(Self.unavailable))
        #expect(saga.types.last == .stepRetrying)
        #expect(saga.wait())
        #expect(saga.report(.undone(.undone))?.attempt == 2)
        #expect(saga.snapshot.status == .compensated)
    }

    @Test func parkedUndoDoesNotStopWhatDoesNotDependOnIt() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"), times: 2)
        saga.report(.failed(Self.refused))
        #expect(saga.report(.failed(StepError(.undecidable, reason: "QUOTA_UNAVAILABLE", message: "?")))?.step == 3)
        #expect(saga.report(.undone(.undone))?.step == 1)
        #expect(saga.snapshot.status == .parked)
        #expect(saga.snapshot.steps[3].status == .compensationFailed)
        #expect(saga.snapshot.steps[0].status == .compensated)
    }

    /// The user service is down: its breaker holds the report's undo back, and the device is destroyed meanwhile.
    @Test func postponedUndoDoesNotStopWhatDoesNotDependOnIt() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"), times: 2)
        saga.report(.failed(Self.refused))
        guard case .call(let call, _) = saga.next() else { return #expect(Bool(false), "no undo is due") }
        #expect(call.step == 3)
        saga.machine.postpone(call, by: .seconds(30), for: "away", isLong: false, now: saga.moment)
        saga.commit()
        #expect(saga.report(.undone(.undone))?.step == 1)
        #expect(saga.snapshot.steps[1].status == .compensated && saga.snapshot.steps[0].status == .compensated)
        #expect(saga.pause == .seconds(30))
        saga.wait()
        #expect(saga.report(.undone(.undone))?.attempt == 1)
        #expect(saga.snapshot.status == .compensated)
    }

    @Test func postponedQuestionWaitsAndTheDeadlineStillHolds() {
        let saga = MachineHarness.started(timeout: .seconds(5))
        saga.answer(.failed(Self.unknown))
        guard case .call(let call, _) = saga.next() else { return #expect(Bool(false), "no question is due") }
        #expect(call.kind == .resolve)
        saga.machine.postpone(call, by: .seconds(30), for: "away", isLong: false, now: saga.moment)
        #expect(saga.wait() && saga.now == saga.snapshot.deadline)
        saga.commit()
        #expect(saga.snapshot.status == .compensating && saga.snapshot.failure?.cause == .timedOut)
    }

    @Test func parkedDestroyHoldsThePortsAndTheRecord() {
        let saga = MachineHarness.started()
        saga.report(.succeeded(output: "{}"))
        saga.report(.failed(Self.refused))
        saga.report(.failed(StepError(.undecidable, reason: "UNREADABLE", message: "?")))
        #expect(saga.snapshot.status == .parked)
        #expect(!saga.sideEffects.contains("release"))
        #expect(!saga.sideEffects.contains("remove"))
        #expect(saga.events.last?.message.contains("PORTS") == true)
    }

    /// The database refuses a record: first its database step is blamed, and only then the result that it holds.
    @Test func refusedRecordFailsItsStep() {
        let saga = MachineHarness.started()
        saga.answer(.succeeded(output: "{}"))
        let error = StepError(.invalid, reason: "JOURNAL_REJECTED", message: "no")
        guard case .write(let first) = saga.next() else { return #expect(Bool(false)) }
        _ = saga.machine.recordWritten(first, .rejected(error), now: saga.moment)
        guard case .write(let second) = saga.next() else { return #expect(Bool(false)) }
        #expect(second.granted.snapshot.failure?.step == "RECORD")
        #expect(second.granted.snapshot.steps[1].status == .compensating)
        #expect(second.databaseStep == nil)
        _ = saga.machine.recordWritten(second, .rejected(error), now: saga.moment)
        saga.commit()
        #expect(saga.snapshot.status == .compensating)
        #expect(saga.snapshot.failure?.step == "CREATE")
        // The device may exist: its success could not be recorded.
        #expect(saga.snapshot.steps[1].isInDoubt)
    }

    /// The fold over the rows is the state that the machine went on with, whatever happened.
    @Test func historyEqualsTheMachine() throws {
        let saga = MachineHarness()
        var rows: [EventRow] = []
        func row(_ record: SagaRecord?) {
            guard let record else { return }
            rows.append(
                EventRow(
                    lastSequence: record.granted.snapshot.lastSequence, userID: rows.isEmpty ? "u" : nil,
                    resourceID: rows.isEmpty ? saga.snapshot.resourceID : nil, batchID: nil,
                    events: JournalEventCodec.encode(record.granted.events),
                    databaseOutput: record.refused == nil ? nil : "{}"))
        }
        row(saga.commit())
        saga.answer(.failed(Self.unavailable))
        row(saga.commit())
        saga.wait()
        row(saga.commit())
        saga.answer(.succeeded(output: "{\"é\":\"☎️\"}"))
        row(saga.commit())
        saga.answer(.failed(Self.refused))
        row(saga.commit())
        saga.answer(.undone(.undone))
        row(saga.commit())
        let names = saga.machine.definition.steps.map(\.name)
        let history = try SagaHistory(id: saga.snapshot.id, rows: rows) { _, _ in names }
        #expect(history.snapshot == saga.snapshot)
        #expect(history.events == saga.events)
    }

    /// Random answers, random crashes: whatever happens, the end is an end, and nothing that may exist is forgotten.
    @Test(arguments: 0..<200 as Range<UInt64>) func randomLivesEndWell(seed: UInt64) {
        var generator = SplitMix64(state: seed)
        let saga = MachineHarness()
        /// What really exists on the other side, by step.
        var exists: [Int: Bool] = [:]
        for _ in 0..<2000 {
            switch saga.next() {
            case .finished:
                let status = saga.snapshot.status
                #expect(status == .completed || status == .compensated || status == .parked, "seed \(seed)")
                if status == .compensated {
                    #expect(!exists.values.contains(true), "seed \(seed): something is left behind")
                }
                if status == .completed { #expect(exists[1] == true && exists[3] == true, "seed \(seed)") }
                return
            case .wait(let pause):
                // Awake or asleep, by a clock that is trusted or not.
                let dice = Int.random(in: 0..<6, using: &generator)
                if dice > 1 || saga.sleep(for: pause, isSameEpoch: dice == 0) == nil { saga.wait() }
            case .write where Int.random(in: 0..<60, using: &generator) == 0:
                let kind = SagaCommand.Kind.allCases.randomElement(using: &generator) ?? .cancel
                // Nobody has done by hand what is to be skipped.
                if kind != .skip { saga.machine.receive([saga.newCommand(kind)]) }
            case .write:
                if Int.random(in: 0..<12, using: &generator) == 0 { saga.adopt() } else { saga.commit() }
            case .call(let call, _):
                let dice = Int.random(in: 0..<10, using: &generator)
                switch call.kind {
                case .execute:
                    if dice < 6 { exists[call.step] = call.step != 4 }
                    if dice == 5 || dice == 9 {
                        saga.adopt()
                    } else if dice == 7, call.step == 1 {
                        saga.answer(.pending(PendingJob(output: "{}", pollAfter: .seconds(9))))
                    } else {
                        saga.answer(
                            dice < 4
                                ? .succeeded(output: "{}")
                                : dice == 4 ? .abandoned : dice == 6 ? .failed(Self.refused) : .failed(Self.unavailable)
                        )
                    }
                case .poll:
                    if dice < 5 { exists[call.step] = true }
                    saga.answer(
                        dice < 5
                            ? .succeeded(output: "{}")
                            : dice == 5
                                ? .failed(Self.refused)
                                : dice == 6 ? .abandoned : .pending(PendingJob(output: "{}", pollAfter: .seconds(9))))
                case .resolve:
                    saga.answer(
                        dice == 0
                            ? .failed(Self.unavailable)
                            : .resolved(exists[call.step] == true ? .happened(output: "{}") : .absent))
                case .compensate:
                    if dice < 7 {
                        let had = exists[call.step] == true
                        exists[call.step] = false
                        if dice == 0 { saga.adopt() } else { saga.answer(.undone(had ? .undone : .nothingFound)) }
                    } else {
                        saga.answer(.failed(Self.unavailable))
                    }
                }
            }
        }
        #expect(Bool(false), "seed \(seed) does not end: \(saga.events.suffix(5)) \(saga.next()) \(saga.events.count)")
    }
}

/// Small, seeded, good enough for tests.
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var value = self.state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }
}
