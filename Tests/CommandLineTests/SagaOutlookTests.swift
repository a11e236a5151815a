import DeviceRPC
import SagaRuntime
import Testing

@testable import devicerpc

/// What `devicerpc get` says of sagas that are parked or wait.
@Suite struct SagaOutlookTests {
    private func saga(
        _ status: V1.SagaStatus, _ steps: [(String, V1.StepStatus)], _ fill: (inout V1.Saga) -> Void = { _ in }
    ) -> V1.Saga {
        var saga = V1.Saga()
        saga.sagaID = "saga_1730188800000_7k2m9x4q1c"
        saga.status = status
        saga.steps = steps.map { name, status in
            V1.SagaStep.with {
                $0.name = name
                $0.status = status
                $0.error = status == .compensationFailed || status == .running ? "away\u{1b}[2J" : ""
            }
        }
        saga.currentStep = steps.last { $0.1 != .pending }?.0 ?? ""
        fill(&saga)
        return saga
    }

    private func wait(_ reason: String, _ dependency: String = "", until: Timestamp? = nil) -> V1.SagaWait {
        V1.SagaWait.with {
            $0.reason = reason
            $0.dependency = dependency
            $0.until = until
        }
    }

    @Test func whatNothingHoldsUpHasNone() {
        #expect(SagaOutlook(self.saga(.running, [("A", .running)]) { $0.nextActions = ["compensate"] }) == nil)
        #expect(SagaOutlook(self.saga(.completed, [("A", .succeeded)])) == nil)
    }

    @Test func parkedOnItsWayForward() throws {
        let saga = self.saga(.parked, [("A", .succeeded), ("B", .running), ("C", .pending)]) {
            $0.failure = V1.SagaFailure.with {
                $0.step = "B"
                $0.reason = "QUOTA_UNAVAILABLE"
                $0.message = "nobody knows"
            }
            $0.nextActions = ["resume", "compensate", "something-new"]
        }
        #expect(
            try #require(SagaOutlook(saga)).text == """
                blocked_by  B: QUOTA_UNAVAILABLE: nobody knows
                tried_next  not by itself
                left        to do: B, C
                helps:
                  # tries B again
                  devicerpc resume saga_1730188800000_7k2m9x4q1c --reason 'the cause is mended'
                  # stops it, and undoes what was done
                  devicerpc compensate saga_1730188800000_7k2m9x4q1c --reason 'not needed any more'

                """)
    }

    @Test func parkedInTheUndo() throws {
        let saga = self.saga(
            .parked, [("A", .succeeded), ("B", .compensationFailed), ("C", .compensated), ("D", .failed)]
        ) {
            $0.currentStep = "B"
            $0.nextActions = ["resume", "skip"]
        }
        let outlook = try #require(SagaOutlook(saga))
        #expect(outlook.blockedBy == "B could not be undone: away\u{1b}[2J" && !outlook.text.contains("\u{1b}"))
        #expect(outlook.left == "to undo: B, A")
        #expect(outlook.helps.map(\.effect).first == "tries the undo of B again")
        #expect(
            outlook.helps.last?.command
                == "devicerpc resume saga_1730188800000_7k2m9x4q1c --skip-step --reason 'done by hand'")
    }

    @Test func waiting() throws {
        let until = Timestamp(milliseconds: 1_730_188_800_000)
        let cases: [(V1.SagaWait, String, String)] = [
            (self.wait("BACK_OFF", until: until), "B: away", "2024-10-29T08:00:00"),
            (self.wait("SETTLE_TIME", until: until), "B: what a call has done may not be visible yet", "2024-10-29"),
            (self.wait("BREAKER_OPEN", "site-a"), "site-a is down", "once site-a answers"),
            (self.wait("JOB", until: until), "B: the other side works on it", "2024-10-29"),
            (self.wait("SITE_UNSERVED", "site-a"), "no live replica serves site-a", "once a replica serves it"),
            (self.wait("SOMETHING_NEW", "x"), "SOMETHING_NEW of x", ""),
        ]
        for (wait, blockedBy, triedNext) in cases {
            let saga = self.saga(.running, [("A", .succeeded), ("B", .running)]) { $0.waitingFor = wait }
            let outlook = try #require(SagaOutlook(saga))
            #expect(outlook.blockedBy.hasPrefix(blockedBy) && outlook.triedNext.hasPrefix(triedNext))
            #expect(outlook.left == "to do: B")
        }
    }

    @Test func whatMayHaveHappenedIsLeftToUndo() throws {
        let saga = self.saga(.compensating, [("A", .compensating), ("B", .failed), ("C", .failed)]) {
            $0.doubt = V1.SagaDoubt.with { $0.step = "B" }
            $0.waitingFor = self.wait("SETTLE_TIME")
        }
        #expect(try #require(SagaOutlook(saga)).left == "to undo: B, A")
    }

    @Test func inQuarantine() throws {
        let saga = self.saga(.running, []) {
            $0.isQuarantined = true
            $0.nextActions = ["resume"]
        }
        let outlook = try #require(SagaOutlook(saga))
        #expect(outlook.blockedBy.contains("can't be read") && outlook.triedNext.hasPrefix("not by itself"))
        #expect(outlook.left.isEmpty && outlook.helps.count == 1)
    }
}
