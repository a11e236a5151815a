/// `google.protobuf.Timestamp` as text: RFC 3339 in UTC.
enum RFC3339 {
    /// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, what the type allows; others are written as the nearest of these.
    private static let range: ClosedRange<Int64> = -62_135_596_800...253_402_300_799

    static func text(seconds: Int64, nanos: Int32) -> String {
        let seconds = min(max(seconds, self.range.lowerBound), self.range.upperBound)
        var days = seconds / 86_400
        var second = seconds % 86_400
        if second < 0 {
            days -= 1
            second += 86_400
        }
        let date = Self.date(days: days)
        func padded(_ value: Int64, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
        }
        return "\(padded(date.year, 4))-\(padded(date.month, 2))-\(padded(date.day, 2))"
            + "T\(padded(second / 3600, 2)):\(padded(second / 60 % 60, 2)):\(padded(second % 60, 2))"
            + Fraction.text(nanos) + "Z"
    }

    /// Reads a date and time with `Z` or an offset; `nil` for anything else.
    static func parse(_ text: String) -> (seconds: Int64, nanos: Int32)? {
        var rest = Substring(text)
        func number(_ digits: Int) -> Int64? {
            let part = rest.prefix(digits)
            guard part.utf8.count == digits, part.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
            rest = rest.dropFirst(digits)
            return Int64(part)
        }
        func skip(_ characters: String) -> Bool {
            guard let first = rest.first, characters.contains(first) else { return false }
            rest = rest.dropFirst()
            return true
        }
        guard let year = number(4), skip("-"), let month = number(2), skip("-"), let day = number(2), skip("Tt"),
            let hour = number(2), skip(":"), let minute = number(2), skip(":"), let second = number(2),
            year >= 1, (1...12).contains(month), (1...Self.daysIn(month: month, year: year)).contains(day),
            hour < 24, minute < 60, second < 60
        else { return nil }
        var nanos: Int32 = 0
        if skip(".") {
            let digits = rest.prefix { $0.isASCII && $0.isNumber }
            guard let value = Fraction.parse(digits) else { return nil }
            rest = rest.dropFirst(digits.count)
            nanos = value
        }
        var offset: Int64 = 0
        if !skip("Zz") {
            let sign: Int64 = rest.first == "-" ? -1 : 1
            guard skip("+-"), let hours = number(2), skip(":"), let minutes = number(2), hours < 24, minutes < 60 else {
                return nil
            }
            offset = sign * (hours * 3600 + minutes * 60)
        }
        let seconds =
            Self.days(year: year, month: month, day: day) * 86_400 + hour * 3600 + minute * 60 + second - offset
        guard rest.isEmpty, self.range.contains(seconds) else { return nil }
        return (seconds, nanos)
    }

    private static func daysIn(month: Int64, year: Int64) -> Int64 {
        switch month {
        case 4, 6, 9, 11: 30
        case 2: (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 29 : 28
        default: 31
        }
    }

    /// Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that the leap day
    /// is the last of its year.
    private static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
        let marchYear = month > 2 ? year : year - 1
        let monthFromMarch = (month + 9) % 12
        let era = marchYear / 400
        let yearOfEra = marchYear % 400
        let dayOfYear = (153 * monthFromMarch + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func date(days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = days + 719_468  // since 0000-03-01; never negative in the range
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        return (
            yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        )
    }
}

/// `google.protobuf.Duration` as text: seconds with up to nine decimals and an `s`.
enum DurationText {
    static func text(seconds: Int64, nanos: Int32) -> String {
        let sign = seconds < 0 || nanos < 0 ? "-" : ""
        return "\(sign)\(seconds.magnitude)\(Fraction.text(nanos == .min ? 0 : abs(nanos)))s"
    }

    static func parse(_ text: String) -> (seconds: Int64, nanos: Int32)? {
        guard text.hasSuffix("s") else { return nil }
        let isNegative = text.hasPrefix("-")
        let parts = text.dropLast().dropFirst(isNegative ? 1 : 0)
            .split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        guard let whole = parts.first, !whole.isEmpty, whole.utf8.allSatisfy({ (48...57).contains($0) }),
            let seconds = Int64(whole), seconds <= 315_576_000_000,
            let nanos = parts.count == 2 ? Fraction.parse(parts[1]) : 0
        else { return nil }
        return isNegative ? (-seconds, -nanos) : (seconds, nanos)
    }
}

/// Nanoseconds as decimals.
private enum Fraction {
    /// Empty, or a point and 3, 6 or 9 digits.
    static func text(_ nanos: Int32) -> String {
        let nanos = min(max(nanos, 0), 999_999_999)
        guard nanos != 0 else { return "" }
        let (value, width): (Int32, Int) =
            nanos % 1_000_000 == 0 ? (nanos / 1_000_000, 3) : nanos % 1000 == 0 ? (nanos / 1000, 6) : (nanos, 9)
        let digits = String(value)
        return "." + String(repeating: "0", count: width - digits.utf8.count) + digits
    }

    static func parse(_ digits: Substring) -> Int32? {
        guard (1...9).contains(digits.utf8.count), digits.utf8.allSatisfy({ (48...57).contains($0) }) else {
            return nil
        }
        return Int32(digits + String(repeating: "0", count: 9 - digits.utf8.count))
    }
}

/// Base64 (RFC 4648, section 4; reading also section 5), padded.
enum Base64Text {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func encode(_ bytes: [UInt8]) -> String {
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            let group = bytes[index..<min(index + 3, bytes.count)]
            let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
            for position in 0..<4 {
                let isPadding = position > group.count
                let digit = Self.alphabet[Int(bits >> UInt32(18 - 6 * position) & 63)]
                result.append(isPadding ? UInt8(ascii: "=") : digit)
            }
            index += 3
        }
        return String(decoding: result, as: UTF8.self)
    }

    static func decode(_ text: String) -> [UInt8]? {
        var digits = Array(text.utf8)
        while digits.last == UInt8(ascii: "="), digits.count % 4 == 0 || text.utf8.count % 4 == 0 {
            digits.removeLast()
        }
        guard digits.count % 4 != 1 else { return nil }
        var result: [UInt8] = []
        var bits: UInt32 = 0
        var count: UInt32 = 0
        for digit in digits {
            let value: UInt32
            switch digit {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = UInt32(digit) - 65
            case UInt8(ascii: "a")...UInt8(ascii: "z"): value = UInt32(digit) - 97 + 26
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = UInt32(digit) - 48 + 52
            case UInt8(ascii: "+"), UInt8(ascii: "-"): value = 62
            case UInt8(ascii: "/"), UInt8(ascii: "_"): value = 63
            default: return nil
            }
            bits = bits << 6 | value
            count += 6
            if count >= 8 {
                count -= 8
                result.append(UInt8(truncatingIfNeeded: bits >> count))
            }
        }
        return result
    }
}
