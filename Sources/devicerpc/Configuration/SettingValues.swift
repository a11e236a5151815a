import NIOCore
import SagaRuntime

/// Where a server listens: an IPv4 address, an IPv6 address in brackets or a host name, and a port (0: any free one).
struct ListenAddress: Sendable, Equatable, CustomStringConvertible {
    var host: String
    var port: Int

    init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Reads `host:port` or `[v6]:port`; `nil` if it is neither.
    init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        guard digits.utf8.allSatisfy({ (48...57).contains($0) }), let port = Int(digits), port <= 65535 else {
            return nil
        }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty, !host.contains(where: \.isWhitespace) else { return nil }
        self.init(host: host, port: port)
    }

    /// Whether only this machine can connect. Names that look like numbers (127.example) may lead anywhere.
    var isLoopback: Bool {
        self.host == "localhost" || self.host == "::1"
            || self.host.hasPrefix("127.") && (try? SocketAddress(ipAddress: self.host, port: 0)) != nil
    }

    var description: String { self.host.contains(":") ? "[\(self.host)]:\(self.port)" : "\(self.host):\(self.port)" }
}

/// Reads durations as people write them: `250ms`, `30s`, `10m`, `24h`, `30d`.
enum DurationText {
    static func parse(_ text: some StringProtocol) -> Duration? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        // Past what anybody may give, and still within what fits.
        guard let number = Double(String(digits)).map({ min($0, 1e9) }) else { return nil }
        switch text.dropFirst(digits.count) {
        case "ms": return .microseconds(Int64(number * 1e3))
        case "s": return .microseconds(Int64(number * 1e6))
        case "m": return .microseconds(Int64(number * 60e6))
        case "h": return .microseconds(Int64(number * 3600e6))
        case "d": return .microseconds(Int64(number * 86_400e6))
        // Nothing is nothing in any unit.
        case "" where number == 0: return .zero
        default: return nil
        }
    }

    /// The shortest text that reads back as the same whole milliseconds.
    static func render(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        let milliseconds = seconds * 1000 + attoseconds / 1_000_000_000_000_000
        if milliseconds == 0 { return "0s" }
        if milliseconds % 86_400_000 == 0, milliseconds > 86_400_000 { return "\(milliseconds / 86_400_000)d" }
        if milliseconds % 3_600_000 == 0 { return "\(milliseconds / 3_600_000)h" }
        if milliseconds % 60_000 == 0 { return "\(milliseconds / 60_000)m" }
        if milliseconds % 1000 == 0 { return "\(milliseconds / 1000)s" }
        return "\(milliseconds)ms"
    }
}

/// The kinds of values that settings have, each as a function that makes a `Setting`.
extension Setting {
    private static func make(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, summary: String, allowed: String,
        defaultText: String, fallback: Value, isSecret: Bool = false, hasFlag: Bool = true, ownFlag: String? = nil,
        parse: @escaping @Sendable (String) throws(SettingProblem) -> Value
    ) -> Setting<Value> {
        Setting(
            description: SettingDescription(
                name: name, environmentName: environmentName, topic: topic, summary: summary, allowed: allowed,
                defaultText: defaultText, isSecret: isSecret, hasFlag: hasFlag, ownFlag: ownFlag),
            fallback: fallback, parse: parse)
    }
}

extension Setting where Value == String {
    static func text(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, default fallback: String,
        allowed: String = "text that is not empty", _ summary: String
    ) -> Setting<String> {
        .make(
            name, environmentName, topic, summary: summary, allowed: allowed, defaultText: fallback, fallback: fallback
        ) { text throws(SettingProblem) in
            if text.isEmpty { throw SettingProblem("is empty") }
            return text
        }
    }
}

extension Setting where Value == String? {
    static func optionalText(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, defaultText: String = "",
        allowed: String = "text that is not empty", isSecret: Bool = false, hasFlag: Bool = true,
        minimumLength: Int = 1, schemes: [String] = [], _ summary: String
    ) -> Setting<String?> {
        .make(
            name, environmentName, topic, summary: summary, allowed: allowed, defaultText: defaultText, fallback: nil,
            isSecret: isSecret, hasFlag: hasFlag
        ) { text throws(SettingProblem) in
            if text.isEmpty { throw SettingProblem("is empty; leave it out instead") }
            if text.utf8.count < minimumLength { throw SettingProblem("has fewer than \(minimumLength) bytes") }
            if !schemes.isEmpty, !schemes.contains(where: { text.hasPrefix($0) && text.count > $0.count }) {
                throw SettingProblem("does not begin with \(schemes.joined(separator: " or "))")
            }
            return text
        }
    }
}

extension Setting where Value == Bool {
    static func boolean(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, default fallback: Bool,
        _ summary: String
    ) -> Setting<Bool> {
        .make(
            name, environmentName, topic, summary: summary, allowed: "true, false", defaultText: "\(fallback)",
            fallback: fallback, parse: Self.parseBoolean)
    }

    @Sendable private static func parseBoolean(_ text: String) throws(SettingProblem) -> Bool {
        switch text.lowercased() {
        case "true", "yes", "on", "1": return true
        case "false", "no", "off", "0": return false
        default: throw SettingProblem("is neither true nor false")
        }
    }
}

extension Setting where Value == Bool? {
    static func optionalBoolean(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, defaultText: String,
        _ summary: String, ownFlag: String? = nil
    ) -> Setting<Bool?> {
        .make(
            name, environmentName, topic, summary: summary, allowed: "true, false", defaultText: defaultText,
            fallback: nil, ownFlag: ownFlag
        ) { text throws(SettingProblem) in
            switch text.lowercased() {
            case "true", "yes", "on", "1": return true
            case "false", "no", "off", "0": return false
            default: throw SettingProblem("is neither true nor false")
            }
        }
    }
}

extension Setting where Value == Int {
    static func integer(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, default fallback: Int,
        in range: ClosedRange<Int>, _ summary: String
    ) -> Setting<Int> {
        .make(
            name, environmentName, topic, summary: summary,
            allowed: "\(range.lowerBound) to \(range.upperBound)", defaultText: "\(fallback)", fallback: fallback
        ) { text throws(SettingProblem) in
            guard let value = Int(text) else { throw SettingProblem("is not a whole number") }
            guard range.contains(value) else { throw SettingProblem("is out of range") }
            return value
        }
    }
}

extension Setting where Value == Duration {
    static func duration(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, default fallback: Duration,
        in range: ClosedRange<Duration>, _ summary: String
    ) -> Setting<Duration> {
        let bounds = "\(DurationText.render(range.lowerBound)) to \(DurationText.render(range.upperBound))"
        return .make(
            name, environmentName, topic, summary: summary, allowed: "a number with ms, s, m, h or d; \(bounds)",
            defaultText: DurationText.render(fallback), fallback: fallback
        ) { text throws(SettingProblem) in
            guard let value = DurationText.parse(text) else {
                throw SettingProblem("is not a duration such as 250ms, 30s or 10m")
            }
            guard range.contains(value) else { throw SettingProblem("is out of range") }
            return value
        }
    }
}

extension Setting where Value == DailyTime {
    static func dailyTime(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, default fallback: DailyTime,
        defaultText: String, _ summary: String
    ) -> Setting<DailyTime> {
        .make(
            name, environmentName, topic, summary: summary, allowed: "hours and minutes, 00:00 to 23:59",
            defaultText: defaultText, fallback: fallback
        ) { text throws(SettingProblem) in
            guard let time = DailyTime(text) else { throw SettingProblem("is not a time such as 02:00") }
            return time
        }
    }
}

extension Setting where Value == ListenAddress {
    static func address(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, default fallback: ListenAddress,
        allowed: String = "host:port, an IPv6 host in brackets; port 0 takes a free one", _ summary: String
    ) -> Setting<ListenAddress> {
        .make(
            name, environmentName, topic, summary: summary, allowed: allowed, defaultText: "\(fallback)",
            fallback: fallback
        ) { text throws(SettingProblem) in
            guard let value = ListenAddress(text) else { throw SettingProblem("is not host:port") }
            return value
        }
    }
}

extension Setting where Value: RawRepresentable<String> & CaseIterable {
    static func choice(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic, default fallback: Value,
        _ summary: String
    ) -> Setting<Value> {
        .make(
            name, environmentName, topic, summary: summary,
            allowed: Value.allCases.map(\.rawValue).joined(separator: ", "), defaultText: fallback.rawValue,
            fallback: fallback
        ) { text throws(SettingProblem) in
            guard let value = Value(rawValue: text.lowercased()) else {
                throw SettingProblem("is not one of the values that are known")
            }
            return value
        }
    }
}

extension Setting where Value == [String: String] {
    /// `key=value` pairs joined by commas; a part without `=` belongs to `bareKey`.
    static func map(
        _ name: String, _ environmentName: String, _ topic: SettingDescription.Topic,
        default fallback: [String: String],
        bareKey: String, allowed: String, _ summary: String
    ) -> Setting<[String: String]> {
        .make(
            name, environmentName, topic, summary: summary, allowed: allowed,
            defaultText: fallback.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ","),
            fallback: fallback
        ) { text throws(SettingProblem) in
            var result: [String: String] = [:]
            for part in text.split(separator: ",", omittingEmptySubsequences: false) {
                let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                let (key, value) = sides.count == 2 ? (sides[0], sides[1]) : (bareKey, sides[0])
                if key.isEmpty || value.isEmpty { throw SettingProblem("has an empty part") }
                if result.updateValue(value, forKey: key) != nil { throw SettingProblem("names \(key) twice") }
            }
            return result
        }
    }
}
