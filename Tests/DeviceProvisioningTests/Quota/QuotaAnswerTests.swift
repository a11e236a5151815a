import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite struct QuotaAnswerTests {
    /// The whole table. Each row: statuses, what comes with them, then what that means for an increment and for a
    /// decrement.
    @Test(
        arguments: [
            ([200, 201, 202, 204, 226, 299], .none, .done, .done),
            ([200, 201, 299], .own(saysNo: false), .done, .done),
            ([200, 201], .own(saysNo: true), .refused, .refused),
            // A proxy's page, or half an answer: it may have been counted before that was written.
            ([200, 201, 299], .foreign, .unknown, .unknown),
            ([301, 302, 307, 308], .none, .misdirected, .misdirected),
            ([301, 302, 307, 308], .foreign, .misdirected, .misdirected),
            // "See other" is what a service answers that has done what was asked for.
            ([300, 303, 304, 305, 306, 399], .none, .unknown, .unknown),
            ([400, 402, 412, 422, 423, 424], .own(saysNo: false), .refused, .refused),
            ([400, 402, 412, 422, 423, 424], .none, .refused, .refused),
            ([400, 402, 412, 422, 423, 424], .foreign, .misdirected, .misdirected),
            ([403], .own(saysNo: false), .refused, .misdirected), ([403], .none, .refused, .misdirected),
            ([403], .foreign, .misdirected, .misdirected),
            (
                [401, 404, 405, 406, 407, 411, 413, 414, 415, 416, 417, 421, 426, 428, 431, 451],
                .own(saysNo: false), .misdirected, .misdirected
            ),
            ([401, 404, 405, 407, 413], .none, .misdirected, .misdirected),
            ([401, 404, 405, 407, 413], .foreign, .misdirected, .misdirected),
            ([409], .own(saysNo: false), .refused, .contradicted), ([410], .own(saysNo: false), .refused, .done),
            ([410], .foreign, .refused, .done),
            ([429], .own(saysNo: false), .refused, .throttled(after: nil)),
            ([429], .none, .refused, .throttled(after: nil)),
            ([429], .foreign, .throttled(after: nil), .throttled(after: nil)),
            ([408, 425, 499, 418, 419, 420, 430, 444], .own(saysNo: false), .unknown, .unknown),
            ([449, 450, 460, 463, 494, 498], .own(saysNo: false), .unknown, .unknown),
            ([408, 425, 499, 460], .none, .unknown, .unknown), ([408, 425, 499, 460], .foreign, .unknown, .unknown),
            ([500, 501, 502, 503, 504, 505, 507, 511, 520, 522, 524, 599], .own(saysNo: false), .unknown, .unknown),
            ([500, 502, 503, 504, 524], .none, .unknown, .unknown),
            ([500, 502, 503, 504, 524], .foreign, .unknown, .unknown),
            ([-1, 0, 1, 100, 101, 103, 199, 600, 999, .max], .none, .unknown, .unknown),
        ] as [([Int], QuotaAnswer.Body, QuotaAnswer, QuotaAnswer)])
    func whatAnAnswerMeans(
        _ statuses: [Int], _ body: QuotaAnswer.Body, _ increment: QuotaAnswer, _ decrement: QuotaAnswer
    ) {
        for status in statuses {
            #expect(
                QuotaAnswer(status: status, body: body, to: .increment, now: Self.now) == increment, "\(status) \(body)"
            )
            #expect(
                QuotaAnswer(status: status, body: body, to: .decrement, now: Self.now) == decrement, "\(status) \(body)"
            )
            // A repeated increment differs in one answer: its key is in use.
            let confirmation = QuotaAnswer(status: status, body: body, to: .confirmation, now: Self.now)
            let isBusy = status == 409 || (status == 429 && increment == .refused)
            #expect(confirmation == (isBusy ? .throttled(after: nil) : increment), "\(status) \(body)")
        }
    }

    /// Only what is certain may be definite: any other status, whatever comes with it, leaves the outcome open.
    @Test func nothingElseIsDefinite() {
        let definite: Set<Int> = Set(200..<300).union([
            301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 412, 413, 414, 415, 416, 417,
            421,
            422, 423, 424, 426, 428, 429, 431, 451,
        ])
        for status in 0...1000 where !definite.contains(status) {
            for body in [QuotaAnswer.Body.none, .own(saysNo: false), .own(saysNo: true), .foreign] {
                for report in QuotaAnswer.Report.allCases {
                    let answer = QuotaAnswer(status: status, body: body, to: report, retryAfter: "1", now: Self.now)
                    #expect(answer == .unknown, "\(status)")
                }
            }
        }
    }

    @Test(
        arguments: [
            (nil, "{}", .own(saysNo: false)), ("application/json", "{}", .own(saysNo: false)),
            ("Application/JSON; charset=utf-8", #" {"success":true} "#, .own(saysNo: false)),
            (" application/problem+json", #"{"success":null}"#, .own(saysNo: false)),
            ("application/json", #"{"success":false}"#, .own(saysNo: true)),
            (nil, "", .none), ("application/json", "", .none), ("text/html", "\r\n ", .none),
            ("text/html", "{}", .foreign), ("text/plain", "{}", .foreign), ("", "{}", .foreign),
            ("application/jsonp", "{}", .foreign), (nil, "<html></html>", .foreign), (nil, "OK", .foreign),
            ("application/json", "[]", .foreign), ("application/json", "true", .foreign),
            ("application/json", #"{"success":tru"#, .foreign), (nil, nil, .foreign),
            ("application/json", nil, .foreign),
        ] as [(String?, String?, QuotaAnswer.Body)])
    func whoseWordABodyIs(_ contentType: String?, _ text: String?, _ expected: QuotaAnswer.Body) {
        let value = text.flatMap { try? JSONValue(parsing: $0) }
        #expect(QuotaAnswer.Body(contentType: contentType, text: text, value: value) == expected, "\(text ?? "-")")
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
            ("soon", nil), ("99999999", .seconds(300)), ("-1", nil),
        ] as [(String, Duration?)])
    func retryAfterIsANumberOrADate(_ text: String, _ expected: Duration?) {
        for report in QuotaAnswer.Report.allCases {
            let answer = QuotaAnswer(status: 429, body: .none, to: report, retryAfter: text, now: Self.now)
            #expect(answer == .throttled(after: expected), "\(text)")
        }
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
