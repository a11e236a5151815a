import DeviceRPC
import RPCTransport
import SagaRuntime
import Testing

@testable import devicerpc

@Suite struct ClientTests {
    private let plain = TextStyle(isColored: false)

    private func event(
        _ sequence: UInt32, _ type: V1.SagaEventType, _ step: String = "", done: UInt32 = 0,
        _ status: V1.SagaStatus = .running, at milliseconds: Int64 = 0, _ fill: (inout V1.SagaEvent) -> Void = { _ in }
    ) -> V1.SagaEvent {
        var event = V1.SagaEvent()
        event.sequence = sequence
        event.type = type
        event.step = step
        event.stepsDone = done
        event.stepsTotal = 5
        event.sagaStatus = status
        event.attempt = 1
        event.time = Timestamp(milliseconds: milliseconds)
        fill(&event)
        return event
    }

    @Test func progressIsToldFromEvents() {
        var progress = SagaProgress()
        #expect(progress.apply(self.event(1, .sagaStarted), style: self.plain).isEmpty)
        #expect(progress.apply(self.event(2, .stepStarted, "START_DEVICE", done: 4), style: self.plain).isEmpty)
        #expect(
            progress.liveLine(now: Timestamp(milliseconds: 1200)) == "████████████████░░░░ 4/5  1.2 s  START_DEVICE")
        let retry = self.event(3, .stepRetrying, "START_DEVICE", done: 4, at: 500) {
            $0.reason = "PROVIDER_UNAVAILABLE"
            $0.message = "away\u{1b}[2J"
            $0.retryAt = Timestamp(milliseconds: 2000)
        }
        #expect(
            progress.apply(retry, style: self.plain)
                == ["  ↻ START_DEVICE             attempt 1 failed: PROVIDER_UNAVAILABLE: away\u{fffd}[2J"])
        #expect(
            progress.liveLine(now: Timestamp(milliseconds: 1500)).hasSuffix(
                "START_DEVICE (waiting to try again), in 0.5 s"))
        #expect(progress.apply(retry, style: self.plain).isEmpty)
        #expect(
            progress.apply(self.event(4, .stepSucceeded, "START_DEVICE", done: 5, at: 2500), style: self.plain)
                == ["  ✓ START_DEVICE             2.5 s"])
        #expect(!progress.isOver)
        #expect(
            progress.apply(self.event(5, .sagaCompleted, done: 5, .completed, at: 2500), style: self.plain)
                == ["completed after 2.5 s"])
        #expect(progress.isOver)
    }

    @Test func undoIsShown() {
        var progress = SagaProgress()
        _ = progress.apply(self.event(1, .sagaStarted), style: self.plain)
        let lines = [
            self.event(2, .stepFailed, "START_DEVICE") { $0.reason = "BOOT_FAILED" },
            self.event(3, .sagaCompensating, "", .compensating),
            self.event(4, .stepCompensating, "ALLOCATE_PORTS", .compensating),
            self.event(5, .stepCompensated, "ALLOCATE_PORTS", .compensating, at: 100),
            self.event(6, .sagaCompensated, "", .compensated, at: 100),
        ].flatMap { progress.apply($0, style: self.plain) }
        #expect(
            lines == [
                "  ✗ START_DEVICE             failed: BOOT_FAILED", "  undoing what was done",
                "  ↶ ALLOCATE_PORTS           undone 0.1 s", "failed, and undone after 0.1 s",
            ])
        #expect(progress.status == .compensated)
    }

    @Test func pipesGetPlainLines() {
        let event = self.event(7, .stepRetrying, "START_DEVICE", done: 4) {
            $0.attempt = 2
            $0.reason = "PROVIDER_UNAVAILABLE"
            $0.message = "a \"b\"\n"
        }
        #expect(
            event.plainLine
                == "1970-01-01T00:00:00.000Z 7 STEP_RETRYING START_DEVICE attempt=2 status=RUNNING done=4/5 "
                + "reason=PROVIDER_UNAVAILABLE message=\"a \\\"b\\\"\\n\"")
    }

    @Test func failuresShowReasonAndFields() {
        var invalid = GoogleRPC.BadRequest()
        invalid.fieldViolations = [GoogleRPC.FieldViolation(field: "name", explanation: "1 to 100 characters")]
        let failure = CallFailure(
            RPCError(.invalidField, "1 field is wrong", details: [PackedMessage(packing: invalid)]))
        #expect(
            failure.text(style: self.plain)
                == "error: INVALID_ARGUMENT INVALID_FIELD: 1 field is wrong\n  name: 1 to 100 characters\n")
        #expect(
            failure.json().contains(
                "\"fieldViolations\":[{\"field\":\"name\",\"description\":\"1 to 100 characters\"}]"))
        #expect(failure.status == .refused)
        #expect(!failure.isRetryable)
    }

    @Test(arguments: [
        (RPCError(.unavailable, ""), CommandStatus.unavailable, true),
        (RPCError(.notFound, ""), .notFound, false),
        (RPCError(.deadlineExceeded, ""), .timedOut, false),
        (RPCError(.permissionDenied, ""), .refused, false),
        (RPCError(.unknown, ""), .internalError, false),
        (RPCError(.cancelled, ""), .internalError, false),
        (RPCError.overloaded(retryAfter: .seconds(1)), .unavailable, true),
    ])
    func statusesHaveExitCodes(error: RPCError, status: CommandStatus, isRetryable: Bool) {
        let failure = CallFailure(error)
        #expect(failure.status == status)
        #expect(failure.isRetryable == isRetryable)
    }

    /// gRFC A6: no number is as bad as a negative one. Zero is no reason to ask without pause.
    @Test(arguments: [("20", true), ("0", true), ("-1", false), ("soon", false), ("", false), ("1e3", false)])
    func pushbackIsHonoured(text: String, isRetryable: Bool) throws {
        var metadata = Metadata()
        metadata.append("grpc-retry-pushback-ms", text)
        let failure = CallFailure(RPCError(.unavailable, "", metadata: metadata))
        #expect(failure.isRetryable == isRetryable)
        if isRetryable { #expect(try #require(failure.pushback) >= .milliseconds(10)) }
    }

    /// Huge, negative and garbled: not again. The longest wait that there is must not overflow anything.
    @Test(
        arguments: [
            (nil, true), ("0", true), ("2147483647", true), ("2147483648", false), ("9223372036854775808", false),
            ("-1", false), ("-9223372036854775809", false), ("soon", false), ("+5", false), ("", false),
        ] as [(String?, Bool)])
    func pushbackOfServers(_ text: String?, _ isRetryable: Bool) async {
        var metadata = Metadata()
        if let text { metadata.append("grpc-retry-pushback-ms", text) }
        let failure = CallFailure(RPCError(.unavailable, "", metadata: metadata))
        #expect(failure.isRetryable == isRetryable, "\(text ?? "none")")
        guard text != "0", text != nil else { return }
        let tries = Ticket()
        await #expect(throws: CallFailure.self) {
            try await Retry.run(within: .seconds(3600)) { _ in
                _ = tries.next()
                throw failure
            }
        }
        #expect(tries.next() == 1)
    }

    @Test(arguments: [
        ("name", "--name"), ("user_id", "--user"), ("request_id", "--request-id"), ("spec.cpu_cores", "--cpu-cores"),
        ("spec.width_px", "--width"), ("spec.android_version", "--android-version"), ("tags", "--tag"),
        ("tags[3]", "--tag[3]"), ("metadata.team", "--metadata team"), ("provider_options.boot.ms", "--option boot.ms"),
        ("saga_timeout", "--saga-timeout"),
    ])
    func fieldsAreCalledByTheirOptions(field: String, option: String) {
        #expect(RequestCheck.option(of: field) == option)
    }

    @Test(arguments: [(false, CommandStatus.failed), (true, .parked)])
    func failedSagasHaveExitCodes(isParked: Bool, status: CommandStatus) throws {
        let sagaID = try #require(SagaID("saga_1730188800000_7k2m9x4q1c"))
        let failure = CallFailure(
            .sagaFailed(sagaID, step: "START_DEVICE", reason: "BOOT_FAILED", message: "", isParked: isParked))
        #expect(failure.status == status)
        #expect(!failure.isRetryable)
        #expect(failure.sagaID == sagaID.rawValue)
    }

    @Test func percentilesAreCloseFromBelowAndAbove() {
        var histogram = LatencyHistogram()
        for value in 1...100_000 { histogram.record(microseconds: Int64(value)) }
        #expect(histogram.count == 100_000)
        #expect(histogram.maximum == 100_000)
        for (percent, exact) in [(50.0, 50_000.0), (90, 90_000), (99, 99_000), (99.9, 99_900)] {
            let ratio = Double(histogram.percentile(percent)) / exact
            #expect((1.0...1.016).contains(ratio), "p\(percent): \(ratio)")
        }
        var other = LatencyHistogram()
        other.record(microseconds: .max)
        other.record(microseconds: -5)
        histogram.merge(other)
        #expect(histogram.maximum == .max)
        #expect(histogram.percentile(100) > 100_000)
    }

    @Test func smallLatenciesAreExact() {
        var histogram = LatencyHistogram()
        for value in [3, 5, 5, 60] { histogram.record(microseconds: Int64(value)) }
        #expect(histogram.percentile(50) == 5)
        #expect(histogram.percentile(100) == 60)
        #expect(LatencyHistogram().percentile(50) == 0)
    }

    @Test func barsAndTablesAreAligned() {
        #expect(ProgressBar.render(done: 1, total: 4, width: 8) == "██░░░░░░")
        #expect(ProgressBar.render(done: 9, total: 4, width: 4) == "████")
        #expect(ProgressBar.render(done: 0, total: 0, width: 2) == "░░")
        #expect(ProgressBar.elapsed(.milliseconds(1290)) == "1.2 s")
        #expect(ProgressBar.elapsed(.seconds(125)) == "2 min 05 s")
        var table = TextTable(["A", "LONG"])
        table.append(["xyz", "1\n2"])
        #expect(Printable.text("safe\u{202e}evil\u{2066}") == "safe\u{fffd}evil\u{fffd}")
        #expect(table.render(style: self.plain) == "A    LONG\nxyz  1\u{fffd}2\n")
    }

    @Test func coloursAreOnlyForTerminals() {
        #expect(TextStyle(isColored: true).red("x") == "\u{1b}[31mx\u{1b}[0m")
        #expect(self.plain.red("x") == "x")
    }

    @Test func theLoadStopsAtItsCount() async {
        let generator = LoadGenerator(inFlight: 4, limit: .calls(50))
        let calls = Ticket()
        let result = await generator.run { _ in
            if calls.next() % 10 == 9 { throw CallFailure(RPCError(.notFound, "")) }
        }
        #expect(result.latencies.count == 45)
        #expect(result.errors == ["NOT_FOUND": 5])
        #expect(result.json("get", 4, 1).contains("\"calls\":45,"))
    }
}
