/// Dates of HTTP headers, in the three forms that have to be understood (RFC 9110, 5.6.7):
/// `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994`.
enum HTTPDate {
    private static let months: [Substring] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// - Parameters:
    ///   - text: as it came.
    ///   - now: seconds since 1970; a year of two digits is at most 50 years after it, and less before it.
    /// - Returns: seconds since 1970; `nil` if it is no date. The weekday is not checked.
    static func seconds(_ text: some StringProtocol, now: Int64) -> Int64? {
        guard text.utf8.count <= 40 else { return nil }
        let words = text.split { $0 == " " || $0 == "," || $0 == "-" }.map { Substring($0) }
        let parts: (day: Substring, month: Substring, year: Substring, time: Substring)
        switch words.count {
        case 6 where words[5] == "GMT": parts = (words[1], words[2], words[3], words[4])
        case 5: parts = (words[2], words[1], words[4], words[3])
        default: return nil
        }
        let clock = parts.time.split(separator: ":", omittingEmptySubsequences: false)
        guard let day = Self.number(parts.day, digits: 1...2), (1...31).contains(day),
            let month = Self.months.firstIndex(of: parts.month), clock.count == 3,
            let hour = Self.number(clock[0], digits: 2...2), hour < 24,
            let minute = Self.number(clock[1], digits: 2...2), minute < 60,
            let second = Self.number(clock[2], digits: 2...2), second <= 60
        else { return nil }
        let year: Int64
        if let full = Self.number(parts.year, digits: 4...4) {
            year = full
        } else if let short = Self.number(parts.year, digits: 2...2) {
            let thisYear = 1970 + now / 31_556_952
            let near = thisYear / 100 * 100 + short
            year = near > thisYear + 50 ? near - 100 : near <= thisYear - 50 ? near + 100 : near
        } else {
            return nil
        }
        return Self.days(year, Int64(month) + 1, day) * 86_400 + hour * 3600 + minute * 60 + second
    }

    private static func number(_ text: Substring, digits: ClosedRange<Int>) -> Int64? {
        guard digits.contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return Int64(text)
    }

    /// Days since 1970, with years that begin in March, so that the leap day is the last one. Years 0 to 9999.
    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let marchYear = month > 2 ? year : year - 1
        // One cycle of 400 years ahead, so that nothing is negative.
        let years = marchYear + 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return years * 365 + years / 4 - years / 100 + years / 400 + dayOfYear - 719_468 - 146_097
    }
}
