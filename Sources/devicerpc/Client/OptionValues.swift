import DeviceRPC

/// What options make of their text. What they throw names the kind of value and how one looks; the parser puts the option
/// and the text before it.
enum OptionValues {
    /// A duration, e.g. `30s`.
    static func duration(_ range: ClosedRange<Duration> = .milliseconds(1) ... .seconds(2_592_000))
        -> @Sendable (String) throws -> DurationArgument
    {
        { text in
            guard let duration = DurationText.parse(text) else {
                throw UsageError("not a duration; give a number and a unit, as in 30s, 5m, 1h")
            }
            guard range.contains(duration) else {
                let bounds = "\(DurationText.render(range.lowerBound)) to \(DurationText.render(range.upperBound))"
                throw UsageError("out of range; allowed: \(bounds)")
            }
            return DurationArgument(duration)
        }
    }

    /// A whole number.
    static func number<Number: FixedWidthInteger & Sendable>(
        _ range: ClosedRange<Number>
    ) -> @Sendable (String) throws -> Number {
        { text in
            let allowed = "allowed: a whole number from \(range.lowerBound) to \(range.upperBound)"
            let digits = text.utf8.drop { $0 == UInt8(ascii: "-") }
            guard !digits.isEmpty, text.utf8.count - digits.count <= 1, digits.allSatisfy({ (48...57).contains($0) })
            else { throw UsageError("not a whole number; \(allowed)") }
            guard let number = Number(text), range.contains(number) else {
                throw UsageError("out of range; \(allowed)")
            }
            return number
        }
    }

    /// `key=value`.
    static func pair(_ example: String) -> @Sendable (String) throws -> KeyValueArgument {
        { text in
            let sides = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard sides.count == 2, !sides[0].isEmpty else {
                throw UsageError("not key=value; give a key, = and a value, as in \(example)")
            }
            return KeyValueArgument(key: sides[0], value: sides[1])
        }
    }

    /// An id: anything but nothing.
    static func id(_ example: String) -> @Sendable (String) throws -> String {
        { text in
            if text.isEmpty { throw UsageError("empty; give an id, as in \(example)") }
            return text
        }
    }

    /// The pairs as a dictionary.
    static func dictionary(_ pairs: [KeyValueArgument], _ flag: String) throws(UsageError) -> [String: String] {
        var result: [String: String] = [:]
        for pair in pairs where result.updateValue(pair.value, forKey: pair.key) != nil {
            throw UsageError("\(flag): '\(pair.key)' is given twice (allowed: each key once)")
        }
        return result
    }
}

/// A duration on the command line.
struct DurationArgument: Sendable, CustomStringConvertible {
    let duration: Duration

    init(_ duration: Duration) { self.duration = duration }

    /// As `--help` shows it.
    var description: String { DurationText.render(self.duration) }
}

/// `key=value` on the command line.
struct KeyValueArgument: Sendable {
    let key: String
    let value: String
}
