import AsyncHTTPClient
import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite struct QuotaAnswerTests {
    @Test(
        arguments: [
            (200, nil, QuotaAnswer.done), (201, nil, .done), (204, "5", .done),
            (400, nil, .refused), (401, nil, .refused), (403, nil, .refused), (404, nil, .refused),
            (409, "1", .refused),
            (422, nil, .refused), (429, nil, .refused),
            (429, "7", .throttled(after: .seconds(7))), (429, "soon", .throttled(after: nil)),
            (429, "99999999", .throttled(after: .seconds(300))), (429, "-1", .throttled(after: nil)),
            (408, nil, .throttled(after: nil)), (425, "2", .throttled(after: .seconds(2))),
            (500, nil, .unknown), (502, nil, .unknown), (503, "1", .unknown), (504, nil, .unknown),
            (302, nil, .unknown),
            (100, nil, .unknown), (0, nil, .unknown), (999, nil, .unknown),
        ] as [(Int, String?, QuotaAnswer)])
    func classifies(_ status: Int, _ retryAfter: String?, _ expected: QuotaAnswer) {
        #expect(QuotaAnswer(status: status, retryAfter: retryAfter, now: Self.now) == expected)
    }

    /// Sun, 06 Nov 1994 08:49:37 GMT
    private static let now: Int64 = 784_111_777

    @Test(
        arguments: [
            ("9223372036854775808", .seconds(300)), (String(repeating: "9", count: 1000), .seconds(300)),
            ("-9223372036854775809", nil), ("0", .zero), (" 7 ", .seconds(7)), ("7 8", nil), ("+7", nil), ("7.5", nil),
            ("", nil), (" ", nil), ("٣", nil),
            ("Sun, 06 Nov 1994 08:50:37 GMT", .seconds(60)), ("Sunday, 06-Nov-94 08:50:37 GMT", .seconds(60)),
            ("Sun Nov  6 08:50:37 1994", .seconds(60)), ("Mon, 06 Nov 2094 08:49:37 GMT", .seconds(300)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", .zero), ("Thu, 01 Jan 1970 00:00:00 GMT", .zero),
            ("Sat, 01 Jan 0000 00:00:00 GMT", .zero), ("Fri, 31 Dec 9999 23:59:60 GMT", .seconds(300)),
            ("Sun, 06 Nov 1994 08:50:37 CET", nil), ("Sun, 06 Nov 1994 24:50:37 GMT", nil),
            ("Sun, 32 Nov 1994 08:50:37 GMT", nil), ("Sun, 06 Foo 1994 08:50:37 GMT", nil),
            ("Sun, 06 Nov 19944 08:50:37 GMT", nil), ("Sun, 06 Nov 1994 8:50:37 GMT", nil),
        ] as [(String, Duration?)])
    func retryAfterIsANumberOrADate(_ text: String, _ expected: Duration?) {
        #expect(QuotaAnswer(status: 425, retryAfter: text, now: Self.now) == .throttled(after: expected), "\(text)")
    }

    @Test(
        arguments: [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800), ("Thu, 26 Nov 2026 03:20:00 GMT", 1_795_663_200),
            ("Friday, 31-Dec-99 23:59:59 GMT", 946_684_799), ("Saturday, 01-Jan-44 00:00:00 GMT", 2_335_219_200),
            ("Sunday, 01-Jan-45 00:00:00 GMT", -788_918_400),
        ] as [(String, Int64)])
    func datesOfHTTP(_ text: String, _ expected: Int64) {
        #expect(HTTPDate.seconds(text, now: Self.now) == expected, "\(text)")
    }

    @Test func aRequestThatMayHaveLeftIsUnknown() {
        #expect(QuotaClient.failure(HTTPClientError.connectTimeout).errorClass == .unavailable)
        #expect(QuotaClient.failure(HTTPClientError.getConnectionFromPoolTimeout).errorClass == .unavailable)
        #expect(QuotaClient.failure(HTTPClientError.deadlineExceeded).errorClass == .unknownOutcome)
        #expect(QuotaClient.failure(HTTPClientError.remoteConnectionClosed).errorClass == .unknownOutcome)
        #expect(QuotaClient.failure(CancellationError()).errorClass == .unknownOutcome)
    }

    @Test func aUsersIDIsOneSegment() {
        #expect(QuotaClient.pathSegment("user-1_a.b~C") == "user-1_a.b~C")
        #expect(QuotaClient.pathSegment("../x?y#z%/ü") == "..%2Fx%3Fy%23z%25%2F%C3%BC")
        #expect(QuotaClient.pathSegment("") == nil)
        #expect(QuotaClient.pathSegment(".") == nil)
        #expect(QuotaClient.pathSegment("..") == nil)
    }

    @Test func bodyIsTheContracts() {
        var device = DeviceRequestTests.plain
        device.spec.memoryMB = 512
        let body = QuotaClient.body(.increment(key: "k"), device)
        #expect(
            body
                == #"{"deviceId":"01234567-89ab-7000-8000-00000000000f","cpuCores":2,"memoryGB":0.5,"storageGB":10,"operation":"increment"}"#
        )
        #expect(QuotaClient.body(.decrement(compensating: "k"), device).hasSuffix(#""operation":"decrement"}"#))
    }

    @Test(arguments: ["", "user-service", "ftp://x", "http://", "http://u:p@x", "http://x?a=b", "http://x#a"])
    func refusesURLs(_ url: String) {
        #expect(throws: ProviderConfigurationError.self) {
            try QuotaConfiguration(baseURL: url, jwtSecret: String(repeating: "s", count: 32))
        }
    }

    @Test func refusesShortSecretsWithoutShowingThem() throws {
        let error = #expect(throws: ProviderConfigurationError.self) {
            try QuotaConfiguration(baseURL: "http://x", jwtSecret: "hunter2")
        }
        #expect(error?.key == "JWT_SECRET")
        #expect(error?.problem.contains("hunter2") == false)
        #expect(
            try QuotaConfiguration(baseURL: "http://x/y//", jwtSecret: String(repeating: "s", count: 32)).baseURL
                == "http://x/y")
    }
}
