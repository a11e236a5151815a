import DeviceRPC
import SagaRuntime
import Testing

@Suite struct ProtoJSONTests {
    @Test(arguments: MessageSamples.all.indices)
    func everyMessageSurvivesJSON(index: Int) throws {
        func check<Message: ProtobufMessage>(_ message: Message) throws {
            guard !(message is GoogleRPC.Status) else { return }  // packed messages are only written
            for pretty in [false, true] {
                for defaults in [false, true] {
                    let text = message.json(.init(isPretty: pretty, includesDefaults: defaults))
                    #expect(try Message(json: text) == message, "\(text)")
                    #expect(pretty || !text.contains("\n"))
                }
            }
        }
        try check(MessageSamples.all[index])
    }

    @Test func writesTheFormOfProto3() {
        let event = V1.SagaEvent.with {
            $0.sagaID = "s"
            $0.sequence = 7
            $0.time = Timestamp(microseconds: 1_730_188_800_500_000)
            $0.type = .stepStarted
            $0.message = "a \"quote\"\n\u{1}☺"
        }
        #expect(
            event.json()
                == #"{"sagaId":"s","sequence":7,"time":"2024-10-29T08:00:00.500Z","#
                + #""type":"SAGA_EVENT_TYPE_STEP_STARTED","message":"a \"quote\"\n\u0001☺"}"#)
        #expect(V1.Saga().json() == "{}")
        #expect(V1.GetSagaRequest().json(.init(includesDefaults: true)) == #"{"sagaId":""}"#)
        #expect(
            V1.ListDevicesRequest.with { $0.statuses = [.running, .init(rawValue: 42)] }.json(.pretty) == """
                {
                  "statuses": [
                    "DEVICE_STATUS_RUNNING",
                    42
                  ]
                }
                """)
        #expect(
            V1.CreateDeviceRequest.with {
                $0.metadata = ["b": "2", "a": "1"]
                $0.sagaTimeout = ProtobufDuration(seconds: 600)
            }.json() == #"{"metadata":{"a":"1","b":"2"},"sagaTimeout":"600s"}"#)
    }

    @Test func writesErrorDetails() {
        let text = MessageSamples.status.json()
        #expect(
            text.hasPrefix(
                #"{"code":3,"message":"wrong","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","#
                    + #""reason":"INVALID_FIELD","domain":"device.cloudphone","metadata":{"saga_id":"s","step":"p"}},"#)
        )
        #expect(text.contains(#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1s"}"#))
        var unknown = PackedMessage()
        unknown.typeURL = "type.googleapis.com/other.Thing"
        unknown.value = [1, 2, 3, 255]
        #expect(unknown.json() == #"{"@type":"type.googleapis.com/other.Thing","value":"AQID/w=="}"#)
    }

    @Test(
        arguments: [
            (#"{"spec":{"cpuCores":4}}"#, 4), (#"{"spec":{"cpu_cores":"4"}}"#, 4),
            (#" { "spec" : { "cpuCores" : 4.0 } } "#, 4),
            (#"{"spec":{"cpuCores":40e-1}}"#, 4), (#"{"spec":{"cpuCores":null}}"#, 0), (#"{"spec":null}"#, nil),
            (#"{"spec":{}}"#, 0), (#"{"spec":{"cpuCores":4294967295}}"#, UInt32.max),
        ] as [(String, UInt32?)])
    func readsTheFormsOfANumber(text: String, cores: UInt32?) throws {
        #expect(try V1.CreateDeviceRequest(json: text).spec?.cpuCores == cores)
    }

    @Test func readsAWholeRequest() throws {
        let request = try V1.CreateDeviceRequest(
            json: #"""
                {
                  "requestId": "r-1", "name": "phone \u263a \uD83D\uDE08 \/ \t",
                  "type": "DEVICE_TYPE_TABLET", "provider": 2,
                  "spec": {"cpuCores": 2, "memoryMb": 2048, "androidVersion": "13.0"},
                  "tags": ["a", "b"], "metadata": {"k": "v"}, "returnWhen": "RETURN_WHEN_FINISHED",
                  "sagaTimeout": "90.5s"
                }
                """#)
        #expect(request.name == "phone ☺ 😈 / \t")
        #expect(request.provider == .redroid)
        #expect(request.spec?.memoryMB == 2048)
        #expect(request.sagaTimeout == ProtobufDuration(seconds: 90, nanos: 500_000_000))
    }

    @Test(arguments: [
        (#"{"nam":"x"}"#, "line 1, column 8: nam: no such field; there are requestId, name, description, type, "),
        (
            "{\n  \"spec\": {\"cpuCores\": -1}\n}",
            "line 2, column 24: spec.cpuCores: a whole number from 0 to 4294967295"
        ),
        (#"{"spec":{"cpuCores":1.5}}"#, "spec.cpuCores: a whole number"),
        (#"{"spec":{"cpuCores":4294967296}}"#, "spec.cpuCores: a whole number"),
        (#"{"spec":{"cpuCores":"x"}}"#, "spec.cpuCores: a whole number"),
        (#"{"spec":{"cpuCores":true}}"#, "spec.cpuCores: a whole number"),
        (#"{"spec":[]}"#, "spec: an object expected, not an array"),
        (#"{"type":"PHONE"}"#, "type: one of DEVICE_TYPE_UNSPECIFIED, DEVICE_TYPE_PHONE, DEVICE_TYPE_TABLET expected"),
        (#"{"name":1}"#, "name: a string expected, not a number"),
        (#"{"name":"a\u0000"}"#, "name: a NUL character is not allowed"),
        (#"{"tags":"x"}"#, "tags: an array expected, not a string"),
        (#"{"tags":["x",3]}"#, "tags[1]: a string expected, not a number"),
        (#"{"tags":[null]}"#, "tags[0]: a string expected, not null"),
        (#"{"metadata":{"k":1}}"#, #"metadata["k"]: a string expected, not a number"#),
        (#"{"metadata":[]}"#, "metadata: an object expected, not an array"),
        (#"{"sagaTimeout":600}"#, "sagaTimeout: a duration such as"),
        (#"{"sagaTimeout":"10m"}"#, "sagaTimeout: a duration such as"),
        (#"{"name":"a","name":"b"}"#, #"line 1, column 13: "name" comes twice"#),
        (#"{"name":"a"} x"#, "text after the end"), ("", "the text ends where a value should be"),
        ("[]", "an object expected, not an array"), (#"{"name":"a"#, "a string without an end"),
        (#"{"name":"\uD800"}"#, "half of a surrogate pair"), (#"{"name":"\q"}"#, "an unknown escape"),
        (#"{"name":tru}"#, "not a JSON value"), (#"{"name" "a"}"#, "':' expected"),
        (#"{"name":"a" "b":1}"#, "',' or '}'"),
        ("{\"name\":\"a\nb\"}", "an unescaped control character"), (#"{"spec":{"dpi":01}}"#, "',' or '}' expected"),
        (#"{"spec":{"dpi":-}}"#, "a digit expected"), (#"{"spec":{"dpi":1.}}"#, "a digit expected"),
        (#"{"name":"a",}"#, "a member name in quotes expected"),
        (String(repeating: "[", count: 100), "more than 64 levels"),
    ])
    func refusalsSayWhatAndWhere(text: String, problem: String) {
        #expect {
            try V1.CreateDeviceRequest(json: text)
        } throws: { error in
            "\(error)".contains(problem)
        }
    }

    @Test(
        arguments: [
            ("1970-01-01T00:00:00Z", 0), ("2024-10-29T08:00:00.5Z", 1_730_188_800_500_000),
            ("2024-10-29T10:00:00.500+02:00", 1_730_188_800_500_000), ("1969-12-31T23:59:59.999999Z", -1),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000), ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
        ] as [(String, Int64)])
    func timestampsAreRFC3339(text: String, microseconds: Int64) throws {
        let saga = try V1.Saga(json: #"{"createdAt":"\#(text)"}"#)
        #expect(saga.createdAt == Timestamp(microseconds: microseconds))
        #expect(try V1.Saga(json: saga.json()) == saga)
    }

    @Test(arguments: [
        "2024-02-30T00:00:00Z", "2023-02-29T00:00:00Z", "2024-13-01T00:00:00Z", "2024-10-29 08:00:00Z", "2024-10-29",
        "2024-10-29T24:00:00Z", "2024-10-29T08:00:00", "2024-10-29T08:00:00.Z", "0000-01-01T00:00:00Z", "x",
        "2024-10-29T08:00:00.1234567890Z", "2024-10-29T08:00:00+2:00", "0001-01-01T00:00:00+01:00",
    ])
    func otherTimesAreRefused(text: String) {
        #expect(throws: ProtoJSONError.self) { try V1.Saga(json: #"{"createdAt":"\#(text)"}"#) }
    }

    /// The calendar of the writer agrees with counting days one by one.
    @Test func datesCountUp() throws {
        var expected = (year: 1999, month: 12, day: 31)
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        for day in 10_956..<(10_956 + 1600) {  // 1999-12-31 is day 10,956
            let time = Timestamp(microseconds: Int64(day) * 86_400_000_000)
            let text = V1.Saga.with { $0.createdAt = time }.json()
            func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
            #expect(text.contains("\"\(expected.year)-\(two(expected.month))-\(two(expected.day))T00:00:00Z\""))
            let isLeap = expected.year % 4 == 0
            expected.day += 1
            if expected.day > lengths[expected.month - 1] + (expected.month == 2 && isLeap ? 1 : 0) {
                expected.day = 1
                expected.month += 1
            }
            if expected.month > 12 { expected = (expected.year + 1, 1, 1) }
        }
    }

    @Test(
        arguments: [
            ("1s", 1, 0), ("-1.500s", -1, -500_000_000), ("0.000000001s", 0, 1), ("-0.1s", 0, -100_000_000),
            ("315576000000s", 315_576_000_000, 0),
        ] as [(String, Int64, Int32)])
    func durations(text: String, seconds: Int64, nanos: Int32) throws {
        let request = try V1.CreateDeviceRequest(json: #"{"sagaTimeout":"\#(text)"}"#)
        #expect(request.sagaTimeout == ProtobufDuration(seconds: seconds, nanos: nanos))
        #expect(try V1.CreateDeviceRequest(json: request.json()) == request)
    }

    @Test func filesOfRequests() throws {
        let expected = ["a", "b"].map { name in V1.CreateDeviceRequest.with { $0.name = name } }
        #expect(try ProtoJSON.messages(#"{"name":"a"}\#n{"name":"b"}\#n"#) == expected)
        #expect(try ProtoJSON.messages(#"[{"name":"a"}, {"name":"b"}]"#) == expected)
        #expect(try ProtoJSON.messages(" \n", as: V1.CreateDeviceRequest.self) == [])
        #expect {
            try ProtoJSON.messages("{\"name\":\"a\"}\n{\"nam\":\"b\"}", as: V1.CreateDeviceRequest.self)
        } throws: {
            "\($0)".hasPrefix("line 2, column 8: nam: no such field")
        }
    }

    @Test(arguments: 0..<4)
    func mutatedTextNeverCrashes(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let original = Array(MessageSamples.createRequest.json(.pretty).utf8)
        for _ in 0..<500 {
            var bytes = original
            for _ in 0..<3 {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                if Bool.random(using: &random) {
                    bytes[index] = "{}[]\",:\\u0 \n-e.x".utf8.randomElement(using: &random) ?? 0
                } else {
                    bytes.remove(at: index)
                }
            }
            let text = String(decoding: bytes, as: UTF8.self)
            if let request = try? V1.CreateDeviceRequest(json: text) {
                #expect((try? V1.CreateDeviceRequest(json: request.json())) == request)
            }
        }
    }
}
