/// The lexical rules of Prometheus' text exposition format 0.0.4.
enum Exposition {
    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`; other characters become underscores.
    static func metricName(_ name: String) -> String { Self.name(name, allowingColon: true) }

    /// `[a-zA-Z_][a-zA-Z0-9_]*`
    static func labelName(_ name: String) -> String { Self.name(name, allowingColon: false) }

    /// `\`, `"` and line feed are escaped; the length is capped, since values come from code that trusts its names.
    static func escapedLabel(_ value: String) -> String {
        var result = ""
        for scalar in value.unicodeScalars.prefix(200) {
            switch scalar {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    static func escapedHelp(_ text: String) -> String {
        String(text.flatMap { $0 == "\\" ? "\\\\" : $0 == "\n" ? "\\n" : "\($0)" })
    }

    /// Whole numbers without a fraction; NaN and infinities by their names.
    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value == value.rounded(), abs(value) < 1e15 { return String(Int64(value)) }
        return String(value)
    }

    private static func name(_ name: String, allowingColon: Bool) -> String {
        var bytes: [UInt8] = []
        for byte in name.utf8 {
            let isLetter = (97...122).contains(byte) || (65...90).contains(byte) || byte == 95
            let isDigit = (48...57).contains(byte)
            if bytes.isEmpty, isDigit { bytes.append(95) }
            bytes.append(isLetter || isDigit || (allowingColon && byte == 58) ? byte : 95)
        }
        return bytes.isEmpty ? "_" : String(decoding: bytes, as: UTF8.self)
    }
}
