import Testing

@testable import DeviceProvisioning

@Suite struct JSONTests {
    @Test func writesWhatItReads() throws {
        let text = JSONWriter.object { writer in
            writer.member("text", "a\"b\\c\n\u{1}\u{0}ü😀")
            writer.member("number", 42)
            writer.member("flag", true)
            writer.member("raw", json: #"{"x":[1,null]}"#)
            writer.member("list", ["a", "b"])
            writer.member("map", ["z": "1", "a": "2"])
        }
        #expect(text.hasSuffix(#""list":["a","b"],"map":{"a":"2","z":"1"}}"#))
        let value = try JSONValue(parsing: text)
        #expect(value["text"]?.string == "a\"b\\c\n\u{1}ü😀")
        #expect(value["number"]?.integer == 42)
        #expect(value["flag"]?.bool == true)
        guard case .array(let elements)? = value["raw"]?["x"]?.content else {
            Issue.record("not an array")
            return
        }
        #expect(elements.map(\.kind) == ["a number", "null"])
        #expect(value["map"]?.strings == ["z": "1", "a": "2"])
    }

    @Test(arguments: [
        "", "{", "}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "[1,]", "[1 2]", "01", "-", "1.", "1e", "tru", "\"a",
        "\"\\x\"",
        "\"\\u12\"", "\"\\ud800x\"", "\"\\udc00\"", "{\"a\":1,\"a\":2}", "\"\u{1}\"", "{} x", "nulll",
    ])
    func refusesWhatIsNotJSON(_ text: String) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
    }

    @Test(arguments: [2, 16, 17, 40]) func refusesAKeyThatComesTwice(count: Int) throws {
        let members = (1...count).map { "\"k\($0)\":\($0)" }
        let value = try JSONValue(parsing: "{" + members.joined(separator: ",") + "}")
        #expect(value["k\(count)"]?.integer == count)
        for repeated in members {
            let text = "{" + (members + [repeated]).joined(separator: ",") + "}"
            #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
        }
    }

    @Test func readsEscapes() throws {
        #expect(try JSONValue(parsing: #""\u0041\ud83d\ude00\/\b\f\n\r\t""#).string == "A😀/\u{8}\u{c}\n\r\t")
        guard case .array(let elements) = try JSONValue(parsing: " [ -0.5e+3 , true ] ").content else {
            Issue.record("not an array")
            return
        }
        #expect(elements.map(\.kind) == ["a number", "a boolean"])
    }

    @Test func depthAndLengthAreBounded() {
        let deep = String(repeating: "[", count: 1000) + String(repeating: "]", count: 1000)
        #expect(throws: JSONError.self) { try JSONValue(parsing: deep) }
        let long = "\"" + String(repeating: "a", count: JSONParser.maximumStoredBytes) + "\""
        #expect(throws: JSONError.self) { try JSONValue(parsing: long) }
    }
}
