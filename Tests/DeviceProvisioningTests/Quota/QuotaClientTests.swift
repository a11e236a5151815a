import Logging
import SagaRuntime
import Synchronization
import Testing

@testable import DeviceProvisioning

@Suite struct QuotaClientTests {
    private static let secret = "0123456789abcdef0123456789abcdef"

    private static func client(
        _ port: Int, isIdempotent: Bool = false, timeout: Duration = .seconds(5),
        logger: Logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    ) throws -> QuotaClient {
        QuotaClient(
            configuration: try QuotaConfiguration(
                baseURL: "http://127.0.0.1:\(port)", jwtSecret: Self.secret, isIdempotent: isIdempotent,
                timeout: timeout), logger: logger)
    }

    private static func port(_ server: RawHTTPServer) throws -> Int {
        try #require(server.dockerHost.split(separator: ":").last.flatMap { Int($0) })
    }

    private static func context(isInDoubt: Bool = false, isRepeat: Bool = false) -> StepContext {
        let view = FlushFixture.view(.simulated, userID: "a/b")
        return StepContext(
            sagaID: view.sagaID, step: DeviceStep.reportQuotaUsage, attempt: 1, generation: 1, request: view.request,
            outputs: [:], secrets: [], isInDoubt: isInDoubt, isRepeat: isRepeat,
            deadline: Timestamp(milliseconds: 2_000_000_000_000), authorize: { () throws(StepError) in })
    }

    private static func errorClass(_ body: () async throws(StepError) -> Void) async -> StepError.Class? {
        do throws(StepError) {
            try await body()
            return nil
        } catch {
            return error.errorClass
        }
    }

    @Test func reportsAndTakesBackUnderKeys() async throws {
        let seen = Mutex<[String]>([])
        let server = try RawHTTPServer { _, request in
            seen.withLock { $0.append(String(decoding: request, as: UTF8.self)) }
            return .bytes(Array("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".utf8))
        }
        let client = try Self.client(try Self.port(server))
        let step = ReportQuotaUsageStep(client: client)
        let context = Self.context()
        #expect(step.isNeeded(request: context.request, outputs: [:]))
        #expect(try await step.execute(context) == .done(output: #"{"generation":1}"#))
        guard case .undone = try await step.compensate(context) else {
            Issue.record("not undone")
            return
        }
        let requests = seen.withLock { $0 }
        let key = "\(context.sagaID):REPORT_QUOTA_USAGE:1"
        #expect(requests.count == 2)
        #expect(requests.allSatisfy { $0.hasPrefix("POST /api/internal/quotas/user/a%2Fb/usage HTTP/1.1\r\n") })
        #expect(requests.allSatisfy { $0.lowercased().contains("\r\nx-service-token: ey") })
        #expect(
            requests[0].contains("idempotency-key: \(key)\r\n") && requests[0].contains(#""operation":"increment""#))
        #expect(!requests[0].contains("x-compensates"))
        #expect(
            requests[1].contains("idempotency-key: \(key):undo\r\n")
                && requests[1].contains("x-compensates: \(key)\r\n"))
        #expect(requests[1].contains(#""operation":"decrement""#))
        await client.shutdown()
    }

    @Test(arguments: [
        (403, StepError.Class.refused, StepError.Class.unavailable), (429, .refused, .throttled(after: nil)),
        (409, .refused, .undecidable), (503, .unknownOutcome, .undecidable), (408, .unknownOutcome, .undecidable),
        (401, .unavailable, .unavailable), (404, .unavailable, .unavailable), (302, .unavailable, .unavailable),
    ])
    func statusDecides(_ status: Int, _ forward: StepError.Class, _ undo: StepError.Class) async throws {
        let server = try RawHTTPServer(
            status: status, body: #"{"message":"over the limit"}"#, headers: "Location: http://elsewhere/\r\n")
        let client = try Self.client(try Self.port(server))
        let step = ReportQuotaUsageStep(client: client)
        do throws(StepError) {
            _ = try await step.execute(Self.context())
            Issue.record("accepted")
        } catch {
            #expect(error.errorClass == forward)
            #expect(error.reason == (forward == .refused ? "QUOTA_REFUSED" : "QUOTA_UNAVAILABLE"))
            #expect(error.message == "the user service answered \(status): over the limit")
        }
        #expect(await Self.errorClass { () throws(StepError) in _ = try await step.compensate(Self.context()) } == undo)
        await client.shutdown()
    }

    /// What is gone needs not be taken back.
    @Test func whatIsGoneIsTakenBack() async throws {
        let server = try RawHTTPServer(status: 410, body: "<html>gone</html>")
        let client = try Self.client(try Self.port(server))
        guard case .undone = try await ReportQuotaUsageStep(client: client).compensate(Self.context()) else {
            Issue.record("not undone")
            return
        }
        await client.shutdown()
    }

    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>", "a proxy's page"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"success\":true}", "broken off by its length"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"success\":true}\r\n",
            "broken off in chunks"
        ),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"success\":tr", "broken off at the end of the connection"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "broken off in the head"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "only said to go on"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "another protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", "no length"),
        ("", "nothing"),
    ])
    func whatDoesNotSayWhatHappenedIsUnknown(_ answer: String, _ what: String) async throws {
        let server = try RawHTTPServer { _, _ in .bytes(Array(answer.utf8)) }
        let client = try Self.client(try Self.port(server))
        let step = ReportQuotaUsageStep(client: client)
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.execute(Self.context()) }
                == .unknownOutcome, "\(what)")
        await client.shutdown()
    }

    /// A token that the service doesn't know any more (its secret was changed) is made anew for the next attempt.
    @Test(arguments: [401, 403]) func aRefusedTokenIsMadeAnew(_ status: Int) async throws {
        let tokens = Mutex<[String]>([])
        let server = try RawHTTPServer { _, request in
            let text = String(decoding: request, as: UTF8.self)
            let token = text.split(separator: "\r\n").first { $0.hasPrefix("x-service-token") } ?? ""
            let count = tokens.withLock { tokens in
                tokens.append(String(token))
                return tokens.count
            }
            let line = count == 1 ? "\(status) X" : "200 OK"
            return .bytes(Array("HTTP/1.1 \(line)\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8))
        }
        let client = try Self.client(try Self.port(server))
        let seconds = Mutex<Int64>(1_000_000_000)
        client.useClock {
            Timestamp(
                milliseconds: seconds.withLock {
                    $0 += 1
                    return $0 * 1000
                })
        }
        let step = ReportQuotaUsageStep(client: client)
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.compensate(Self.context()) }
                == .unavailable)
        guard case .undone = try await step.compensate(Self.context()) else {
            Issue.record("not undone")
            return
        }
        #expect(Set(tokens.withLock { $0 }).count == 2)
        await client.shutdown()
    }

    /// An operator has to look; but not once for every saga.
    @Test func aWrongAddressIsSaidOnce() async throws {
        let lines = LogLines()
        let server = try RawHTTPServer(status: 404, body: "<html>no such page</html>")
        let client = try Self.client(try Self.port(server), logger: lines.logger)
        let step = ReportQuotaUsageStep(client: client)
        for _ in 0..<5 {
            #expect(
                await Self.errorClass { () throws(StepError) in _ = try await step.execute(Self.context()) }
                    == .unavailable)
        }
        #expect(lines.all.filter { $0.hasPrefix("error") }.count == 1)
        await client.shutdown()
    }

    @Test func lostAnswersAreUnknownAndRefusedConnectionsAreNot() async throws {
        let hangsUp = try RawHTTPServer { _, _ in .hangUp }
        let silent = try RawHTTPServer { _, _ in .silence }
        for server in [hangsUp, silent] {
            let client = try Self.client(try Self.port(server), timeout: .milliseconds(300))
            let step = ReportQuotaUsageStep(client: client)
            #expect(
                await Self.errorClass { () throws(StepError) in _ = try await step.execute(Self.context()) }
                    == .unknownOutcome)
            await client.shutdown()
        }
        let unused = try BlockingSocket.listening()
        let port = unused.port
        unused.shutDown()
        let client = try Self.client(port)
        let step = ReportQuotaUsageStep(client: client)
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.execute(Self.context()) } == .unavailable
        )
        await client.shutdown()
    }

    @Test func nothingIsSentWithoutTrustInTheLease() async throws {
        let seen = Mutex(0)
        let server = try RawHTTPServer { _, _ in
            seen.withLock { $0 += 1 }
            return .hangUp
        }
        let client = try Self.client(try Self.port(server))
        var context = Self.context()
        context.authorize = { () throws(StepError) in throw StepError(.leaseLost, reason: "LEASE_LOST", message: "") }
        let untrusted = context
        let step = ReportQuotaUsageStep(client: client)
        #expect(await Self.errorClass { () throws(StepError) in _ = try await step.execute(untrusted) } == .leaseLost)
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.compensate(untrusted) } == .leaseLost)
        #expect(seen.withLock { $0 } == 0)
        await client.shutdown()
    }

    /// Today's user service ignores keys: what may have been counted is neither repeated nor taken back blindly.
    @Test func doubtParksWhereKeysAreIgnored() async throws {
        let seen = Mutex(0)
        let server = try RawHTTPServer { _, _ in
            seen.withLock { $0 += 1 }
            return .hangUp
        }
        let client = try Self.client(try Self.port(server), isIdempotent: false)
        let step = ReportQuotaUsageStep(client: client)
        guard case .undecidable = try await step.resolve(Self.context(isInDoubt: true)) else {
            Issue.record("decided")
            return
        }
        let inDoubt = Self.context(isInDoubt: true)
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.compensate(inDoubt) } == .undecidable)
        let again = Self.context(isRepeat: true)
        #expect(await Self.errorClass { () throws(StepError) in _ = try await step.compensate(again) } == .undecidable)
        #expect(seen.withLock { $0 } == 0)
        // Known to be counted: sent once, and its lost answer parks.
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.compensate(Self.context()) }
                == .undecidable)
        #expect(seen.withLock { $0 } == 1)
        await client.shutdown()
    }

    @Test func doubtRepeatsUnderTheKeyWhereKeysAreHonoured() async throws {
        let server = try RawHTTPServer { _, _ in .hangUp }
        let client = try Self.client(try Self.port(server), isIdempotent: true)
        let step = ReportQuotaUsageStep(client: client)
        guard case .repeatable = try await step.resolve(Self.context(isInDoubt: true)) else {
            Issue.record("not repeatable")
            return
        }
        let inDoubt = Self.context(isInDoubt: true, isRepeat: true)
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.compensate(inDoubt) } == .unknownOutcome)
        await client.shutdown()
    }

    /// An increment in doubt is counted, certainly and once, before it is taken back; one that is refused was never
    /// counted; and nothing is taken back while that is not known.
    @Test(arguments: [
        (200, "undone", ["increment", "decrement"]), (403, "nothing found", ["increment"]),
        (422, "nothing found", ["increment"]),
        (410, "nothing found", ["increment"]),
        (409, "QUOTA_UNAVAILABLE", ["increment"]), (401, "QUOTA_UNAVAILABLE", ["increment"]),
        (404, "QUOTA_UNAVAILABLE", ["increment"]), (503, "QUOTA_UNAVAILABLE", ["increment"]),
        (408, "QUOTA_UNAVAILABLE", ["increment"]), (429, "QUOTA_UNAVAILABLE", ["increment"]),
        (302, "QUOTA_UNAVAILABLE", ["increment"]),
    ])
    func aDoubtIsEndedBeforeItIsTakenBack(_ status: Int, _ expected: String, _ operations: [String]) async throws {
        let seen = Mutex<[String]>([])
        let server = try RawHTTPServer { _, request in
            let text = String(decoding: request, as: UTF8.self)
            let isIncrement = text.contains(#""operation":"increment""#)
            #expect(text.contains(":1:undo\r\n") != isIncrement)
            seen.withLock { $0.append(isIncrement ? "increment" : "decrement") }
            let line = isIncrement ? "\(status) X" : "200 OK"
            return .bytes(Array("HTTP/1.1 \(line)\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8))
        }
        let client = try Self.client(try Self.port(server), isIdempotent: true)
        let step = ReportQuotaUsageStep(client: client)
        for isRepeat in [false, true] {
            let said: String
            do throws(StepError) {
                switch try await step.compensate(Self.context(isInDoubt: true, isRepeat: isRepeat)) {
                case .undone: said = "undone"
                case .nothingFound: said = "nothing found"
                case .pending: said = "pending"
                case .assumed: said = "assumed"
                }
            } catch {
                said = error.reason
                #expect(error.isRetryable)
            }
            #expect(said == expected)
            #expect(seen.withLock { $0 } == operations)
            seen.withLock { $0 = [] }
        }
        // What is known to be counted is not counted again.
        guard case .undone = try await step.compensate(Self.context()) else {
            Issue.record("not undone")
            return
        }
        #expect(seen.withLock { $0 } == ["decrement"])
        await client.shutdown()
    }

    /// A call that left a frozen process after others had decided: what it counted is taken back, unless the saga holds
    /// it.
    @Test func whatCameTooLateIsTakenBack() async throws {
        let seen = Mutex(0)
        let server = try RawHTTPServer { _, _ in
            seen.withLock { $0 += 1 }
            return .bytes(Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8))
        }
        let client = try Self.client(try Self.port(server), isIdempotent: true)
        let step = ReportQuotaUsageStep(client: client)
        try await step.discard(Self.context(), output: nil)
        #expect(seen.withLock { $0 } == 2)
        var holding = Self.context()
        holding.outputs = [DeviceStep.reportQuotaUsage: "{}"]
        try await step.discard(holding, output: "{}")
        #expect(seen.withLock { $0 } == 2)
        await client.shutdown()
    }

    /// The clock is the runtime's, whose steps hold the client: kept, it would keep both for ever.
    @Test func shutDownItLetsGoOfItsClock() async throws {
        final class Clock: Sendable {}
        weak var clock: Clock?
        let client = try Self.client(1)
        do {
            let made = Clock()
            clock = made
            client.useClock { withExtendedLifetime(made) { Timestamp(milliseconds: 1) } }
        }
        #expect(clock != nil)
        await client.shutdown()
        #expect(clock == nil)
    }

    @Test func withoutAUserServiceThereIsNothingToDo() async {
        let step = ReportQuotaUsageStep(client: nil)
        #expect(!step.isNeeded(request: [], outputs: [:]))
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.compensate(Self.context()) }
                == .unavailable)
    }
}
