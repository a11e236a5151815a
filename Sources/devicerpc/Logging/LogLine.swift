import Logging

/// One log event, rendered without side effects.
struct LogLine {
    /// Microseconds since the Unix epoch.
    let time: Int64
    let level: Logger.Level
    let label: String
    let message: String
    let metadata: Logger.Metadata

    /// Room for most lines, so that they grow but once.
    private static let usualBytes = 384
    /// Eight wide.
    private static let words = Dictionary(
        uniqueKeysWithValues: Logger.Level.allCases.map { level in
            let word = level.rawValue.uppercased()
            return (level, word + String(repeating: " ", count: max(0, 8 - word.utf8.count)))
        })

    /// `2026-01-31T12:00:00.123Z INFO  devicerpc.saga: [SAGA] step started  saga_id=… step=…`
    func text() -> String {
        var line = WallClock.render(self.time)
        line.reserveCapacity(Self.usualBytes)
        line += " "
        line += Self.words[self.level] ?? ""
        line += " "
        line += self.label
        line += ": "
        Self.appendPlain(self.message, to: &line)
        for (key, value) in self.metadata.sorted(by: { $0.key < $1.key }) {
            line += " "
            line += key
            line += "="
            if case .string(let text) = value {
                Self.appendWord(text, to: &line)
            } else {
                Self.appendWord("\(value)", to: &line)
            }
        }
        line += "\n"
        return line
    }

    /// `{"time":"…","level":"info","logger":"…","message":"…","saga_id":"…"}`; metadata that is named like one of
    /// ours gets an underscore.
    func json() -> String {
        var line = "{\"time\":\""
        line.reserveCapacity(Self.usualBytes)
        line += WallClock.render(self.time)
        line += "\",\"level\":\""
        line += self.level.rawValue
        line += "\",\"logger\":"
        JSONText.append(self.label, to: &line)
        line += ",\"message\":"
        JSONText.append(self.message, to: &line)
        for (key, value) in self.metadata.sorted(by: { $0.key < $1.key }) {
            line += ","
            JSONText.append(["time", "level", "logger", "message"].contains(key) ? key + "_" : key, to: &line)
            line += ":"
            Self.append(value, to: &line)
        }
        line += "}\n"
        return line
    }

    private static func append(_ value: Logger.MetadataValue, to line: inout String) {
        switch value {
        case .string(let text): JSONText.append(text, to: &line)
        case .stringConvertible(let convertible):
            switch convertible {
            case let number as any FixedWidthInteger: line += "\(number)"
            case let flag as Bool: line += "\(flag)"
            case let number as Double where number.isFinite: line += "\(number)"
            default: JSONText.append("\(convertible)", to: &line)
            }
        case .array(let values):
            line += "["
            for (index, value) in values.enumerated() {
                if index > 0 { line += "," }
                Self.append(value, to: &line)
            }
            line += "]"
        case .dictionary(let values):
            line += "{"
            for (index, pair) in values.sorted(by: { $0.key < $1.key }).enumerated() {
                if index > 0 { line += "," }
                JSONText.append(pair.key, to: &line)
                line += ":"
                Self.append(pair.value, to: &line)
            }
            line += "}"
        }
    }

    /// A line stays one line, and a terminal is safe from control characters.
    private static func appendPlain(_ text: String, to line: inout String) {
        if text.allBytes({ (32..<127).contains($0) }) {
            line += text
            return
        }
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\n": line += "\\n"
            case "\t": line += "\t"
            default:
                if scalar.value < 32 || (127..<160).contains(scalar.value) {
                    line += "\\u{\(String(scalar.value, radix: 16))}"
                } else {
                    line.unicodeScalars.append(scalar)
                }
            }
        }
    }

    private static func appendWord(_ text: String, to line: inout String) {
        let isPlain = !text.isEmpty && text.utf8.allSatisfy { $0 > 32 && $0 != 34 && $0 != 61 && $0 != 127 }
        if isPlain { Self.appendPlain(text, to: &line) } else { JSONText.append(text, to: &line) }
    }
}
