import DeviceRPC
import Foundation
import RPCTransport
import SagaRuntime
import Testing

@testable import devicerpc

@Suite struct BatchTests {
    private func request(_ name: String) -> V1.CreateDeviceRequest { .with { $0.name = name } }

    @Test(arguments: [
        ("phone-{n}", 7, "phone-7"), ("{n:3}", 7, "007"), ("a{n:2}b", 123, "a123b"), ("电话{n}", 1, "电话1"),
    ])
    func patternsName(pattern: String, number: Int, name: String) {
        #expect(NamePattern(pattern)?.name(number) == name)
    }

    @Test(arguments: ["phone", "{n}{n}", "{m}", "{n:}", "{n:0}", "{n:x}", "{n", "n}", "}{n}", "{{n}}"])
    func patternsWithoutOnePlaceAreRefused(pattern: String) { #expect(NamePattern(pattern) == nil) }

    @Test func requestIDsAreTheSameEachTimeAndFit() {
        #expect(BatchRequestID.make(batchID: "b", name: "phone-1", attempt: 1) == "b/phone-1")
        #expect(BatchRequestID.make(batchID: "b", name: "phone-1", attempt: 3) == "b/phone-1.3")
        let names = ["电话", "a b", String(repeating: "x", count: 100), "y" + String(repeating: "x", count: 99)]
        var ids: Set<String> = []
        for name in names {
            let id = BatchRequestID.make(batchID: "b", name: name, attempt: 2)
            #expect(id == BatchRequestID.make(batchID: "b", name: name, attempt: 2))
            #expect(id.utf8.count <= 64)
            #expect(id.utf8.allSatisfy { (33...126).contains($0) })
            ids.insert(id)
        }
        #expect(ids.count == names.count)
    }

    @Test func templatesExpand() throws {
        let template = V1.CreateDeviceRequest.with { $0.userID = "me" }
        let requests = try BatchPlan.expand(template, pattern: "p-{n:2}", count: 3, start: 9)
        #expect(requests.map(\.name) == ["p-09", "p-10", "p-11"])
        #expect(requests.allSatisfy { $0.userID == "me" })
        #expect(throws: UsageError.self) { try BatchPlan.expand(template, pattern: "p", count: 3, start: 1) }
    }

    @Test func plansFillInIDs() throws {
        let plan = try BatchPlan(batchID: "b1", requests: [self.request("x"), self.request("y")])
        #expect(plan.items.map(\.request.requestID) == ["b1/x", "b1/y"])
        #expect(plan.items.allSatisfy { $0.request.batchID == "b1" })
    }

    @Test func namesMustBeThereAndUnique() {
        #expect(throws: UsageError.self) { try BatchPlan(batchID: "b", requests: []) }
        #expect(throws: UsageError.self) { try BatchPlan(batchID: "b", requests: [self.request("")]) }
        #expect(throws: UsageError.self) {
            try BatchPlan(batchID: "b", requests: [self.request("x"), self.request("x")])
        }
        #expect(throws: UsageError.self) { try BatchPlan(batchID: "b c", requests: [self.request("x")]) }
        #expect(throws: UsageError.self) { try BatchPlan(batchID: "", requests: [self.request("x")]) }
    }

    @Test func onlyWhatFailedGetsANewTry() throws {
        func outcome(_ status: BatchOutcome.Status, _ attempt: Int) throws -> BatchOutcome {
            let item = BatchPlan.Item(name: "", request: V1.CreateDeviceRequest(), attempt: attempt)
            var outcome = BatchOutcome(V1.CreateDeviceResponse(), item)
            outcome.status = status
            return outcome
        }
        let earlier = [
            "done": try outcome(.completed, 1), "failed": try outcome(.compensated, 2), "lost": try outcome(.error, 1),
        ]
        let requests = ["done", "failed", "lost", "new"].map(self.request)
        let again = try BatchPlan(batchID: "b", requests: requests, earlier: earlier)
        #expect(again.items.map(\.request.requestID) == ["b/done", "b/failed.2", "b/lost", "b/new"])
        let retry = try BatchPlan(batchID: "b", requests: requests, earlier: earlier, retriesFailed: true)
        #expect(retry.items.map(\.request.requestID) == ["b/done", "b/failed.3", "b/lost", "b/new"])
    }

    @Test func outcomesSayWhatHappened() throws {
        let sagaID = try #require(SagaID("saga_1730188800000_7k2m9x4q1c"))
        let item = BatchPlan.Item(
            name: "x", request: V1.CreateDeviceRequest.with { $0.requestID = "b/x" }, attempt: 1)
        let undone = CallFailure(
            .sagaFailed(sagaID, step: "ALLOCATE_PORTS", reason: "PORTS_EXHAUSTED", message: "none", isParked: false))
        let failed = BatchOutcome(undone, item)
        #expect(failed.status == .compensated)
        #expect(failed.reason == "PORTS_EXHAUSTED")
        #expect(failed.sagaID == sagaID.rawValue)
        #expect(failed.isFailure)
        let away = BatchOutcome(CallFailure(RPCError(.unavailable, "gone")), item)
        #expect(away.status == .error)
        #expect(!away.isFailure)
        let data = try BatchResults.encode(["x": failed, "y": away])
        #expect(try BatchResults.decode(data) == ["x": failed, "y": away])
    }

    @Test func aStreamsErrorIsAsACalls() throws {
        let sagaID = try #require(SagaID("saga_1730188800000_7k2m9x4q1c"))
        let error = RPCError.sagaFailed(sagaID, step: "X", reason: "QUOTA_REFUSED", message: "no", isParked: false)
        let status = try #require(error.status)
        let (one, other) = (CallFailure(status), CallFailure(error))
        #expect(
            (one.code, one.reason, one.message, one.sagaID) == (other.code, other.reason, other.message, other.sagaID))
        let overloaded = RPCError.overloaded(retryAfter: .seconds(3))
        #expect(try CallFailure(#require(overloaded.status)).pushback == .seconds(3))
    }

    /// The saga goes on: nothing says that it failed.
    @Test func aWaitThatEndedIsNoFailure() {
        let item = BatchPlan.Item(name: "x", request: V1.CreateDeviceRequest(), attempt: 1)
        let interrupted = CallFailure(
            RPCError(.shuttingDown, "it goes on", metadata: ["saga_id": "saga_1730188800000_7k2m9x4q1c"]))
        #expect(interrupted.isRetryable && interrupted.status == .unavailable)
        let outcome = BatchOutcome(interrupted, item)
        #expect(outcome.status == .error && !outcome.isFailure && !outcome.sagaID.isEmpty)
    }

    @Test func aDeviceThatWasMadeStaysMade() {
        let finished = BatchPlan.Item(
            name: "x", request: V1.CreateDeviceRequest.with { $0.returnWhen = .finished }, attempt: 1)
        let accepted = BatchPlan.Item(name: "x", request: V1.CreateDeviceRequest(), attempt: 1)
        let made = BatchOutcome(V1.CreateDeviceResponse(), finished)
        let started = BatchOutcome(V1.CreateDeviceResponse(), accepted)
        let away = BatchOutcome(CallFailure(RPCError(.unavailable, "gone")), accepted)
        #expect(made.followed(by: away) == made && made.followed(by: started) == made)
        #expect(started.followed(by: away) == away && away.followed(by: made) == made)
    }

    @Test func failedOnesComeLast() throws {
        let item = BatchPlan.Item(name: "x", request: V1.CreateDeviceRequest(), attempt: 1)
        let started = BatchOutcome(V1.CreateDeviceResponse(), item)
        let away = BatchOutcome(CallFailure(RPCError(.unavailable, "gone")), item)
        let outcomes = ["a": away, "b": started, "c \"☺\"": away, "d": started]
        #expect(BatchResults.failedLast(outcomes).map(\.name) == ["b", "d", "a", "c \"☺\""])
        #expect(try BatchResults.decode(BatchResults.encode(outcomes)) == outcomes)
        #expect(try BatchResults.decode(BatchResults.encode([:])).isEmpty)
        var tally = BatchTally(total: 4)
        for (name, outcome) in outcomes { tally.add(name, outcome) }
        #expect(tally.reasons(style: TextStyle(isColored: false)) == "✗ 2 UNAVAILABLE\n")
    }

    @Test func whatIsWatchedIsCountedOnce() {
        let style = TextStyle(isColored: false)
        var progress = BatchProgress()
        let saga = V1.Saga.with {
            $0.sagaID = "s1"
            $0.requestID = "b/1"
            $0.status = .running
        }
        #expect(progress.apply(saga, style: style).isEmpty && !progress.isOver)
        let failed = V1.SagaEvent.with {
            $0.sagaID = "s1"
            $0.type = .sagaCompensating
            $0.sagaStatus = .compensating
            $0.reason = "BOOT_FAILED"
            $0.message = "black"
        }
        #expect(progress.apply(failed, style: style).isEmpty)
        let undone = V1.SagaEvent.with {
            $0.sagaID = "s1"
            $0.type = .sagaCompensated
            $0.sagaStatus = .compensated
        }
        #expect(
            progress.apply(undone, style: style) == ["COMPENSATED  b/1  saga_id=s1 device_id=  BOOT_FAILED: black"])
        // After a new stream it comes once more.
        #expect(
            progress.apply(
                .with {
                    $0.sagaID = "s1"; $0.status = .compensated
                }, style: style
            ).isEmpty)
        #expect(progress.apply(.with { $0.sagaID = "unknown" } as V1.SagaEvent, style: style).isEmpty)
        #expect(progress.isOver && progress.status == .failed)
        #expect(progress.summary(style: style) == ["✗ 1 BOOT_FAILED"])
        #expect(progress.line(elapsed: .seconds(1)).hasSuffix("1/1  1 compensated  1.0 s"))
    }

    @Test func theWorstOutcomeIsTheExitCode() {
        let item = BatchPlan.Item(name: "x", request: V1.CreateDeviceRequest(), attempt: 1)
        var tally = BatchTally(total: 2)
        tally.add("a", BatchOutcome(V1.CreateDeviceResponse(), item))
        #expect(tally.status == .success)
        tally.add("b", BatchOutcome(CallFailure(RPCError(.unavailable, "")), item))
        #expect(tally.status == .unavailable)
        #expect(
            tally.line(elapsed: .seconds(2), style: TextStyle(isColored: false))
                == String(repeating: "█", count: 30) + " 2/2  ✓ 1  ✗ 1  1.0/s")
    }
}
