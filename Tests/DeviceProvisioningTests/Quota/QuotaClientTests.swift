import SagaRuntime
import Synchronization
import Testing

@testable import DeviceProvisioning

@Suite struct QuotaClientTests {
    private static let secret = "0123456789abcdef0123456789abcdef"

    private static func client(
        _ port: Int, isIdempotent: Bool = false, timeout: Duration = .seconds(5)
    ) throws -> QuotaClient {
        QuotaClient(
            configuration: try QuotaConfiguration(
                baseURL: "http://127.0.0.1:\(port)", jwtSecret: Self.secret, isIdempotent: isIdempotent,
                timeout: timeout))
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
        #expect(step.isNeeded(request: context.request))
        #expect(try await step.execute(context) == "{}")
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
        (403, StepError.Class.refused), (429, .refused), (503, .unknownOutcome), (408, .throttled(after: nil)),
    ])
    func statusDecides(_ status: Int, _ expected: StepError.Class) async throws {
        let server = try RawHTTPServer(status: status, body: #"{"message":"over the limit"}"#)
        let client = try Self.client(try Self.port(server))
        let step = ReportQuotaUsageStep(client: client)
        do throws(StepError) {
            _ = try await step.execute(Self.context())
            Issue.record("accepted")
        } catch {
            #expect(error.errorClass == expected)
            #expect(error.reason == (expected == .refused ? "QUOTA_REFUSED" : "QUOTA_UNAVAILABLE"))
            #expect(error.message == "the user service answered \(status): over the limit")
        }
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
        #expect(!step.isNeeded(request: []))
        #expect(
            await Self.errorClass { () throws(StepError) in _ = try await step.compensate(Self.context()) }
                == .unavailable)
    }
}
