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
        #expect(QuotaAnswer(status: status, retryAfter: retryAfter) == expected)
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
