/// JSON string literals (RFC 8259, section 7).
enum JSONText {
    static func append(_ text: String, to output: inout String) {
        output += "\""
        if text.allBytes({ (32..<127).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }) {
            output += text
        } else {
            Self.appendEscaped(text, to: &output)
        }
        output += "\""
    }

    private static func appendEscaped(_ text: String, to output: inout String) {
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": output += "\\\""
            case "\\": output += "\\\\"
            case "\n": output += "\\n"
            case "\r": output += "\\r"
            case "\t": output += "\\t"
            default:
                if scalar.value < 32 || scalar.value == 127 {
                    let hex = String(scalar.value, radix: 16)
                    output += "\\u" + String(repeating: "0", count: 4 - hex.utf8.count) + hex
                } else {
                    output.unicodeScalars.append(scalar)
                }
            }
        }
    }

    static func quoted(_ text: String) -> String {
        var output = ""
        Self.append(text, to: &output)
        return output
    }
}
