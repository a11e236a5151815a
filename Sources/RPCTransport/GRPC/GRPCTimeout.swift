/// `grpc-timeout`: one to eight digits and a unit (PROTOCOL-HTTP2.md, Timeout).
enum GRPCTimeout {
    /// The longest that is told apart from "no deadline": 100 years, in nanoseconds.
    static let maximumNanoseconds: Int64 = 100 * 365 * 24 * 3600 * 1_000_000_000

    /// Nanoseconds, at most `maximumNanoseconds`; nil if malformed.
    static func parse(_ text: UnsafeBufferPointer<UInt8>) -> Int64? {
        guard (2...9).contains(text.count), let unit = text.last else { return nil }
        var value: Int64 = 0
        for digit in text.dropLast() {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
            value = value * 10 + Int64(digit - UInt8(ascii: "0"))
        }
        let nanosecondsPerUnit: Int64
        switch unit {
        case UInt8(ascii: "n"): nanosecondsPerUnit = 1
        case UInt8(ascii: "u"): nanosecondsPerUnit = 1000
        case UInt8(ascii: "m"): nanosecondsPerUnit = 1_000_000
        case UInt8(ascii: "S"): nanosecondsPerUnit = 1_000_000_000
        case UInt8(ascii: "M"): nanosecondsPerUnit = 60 * 1_000_000_000
        case UInt8(ascii: "H"): nanosecondsPerUnit = 3600 * 1_000_000_000
        default: return nil
        }
        let (product, overflow) = value.multipliedReportingOverflow(by: nanosecondsPerUnit)
        return overflow ? Self.maximumNanoseconds : min(product, Self.maximumNanoseconds)
    }

    /// The finest unit that holds the time in eight digits, rounded up so that the server never gives up first.
    static func encode(nanoseconds: Int64) -> String {
        let nanoseconds = max(0, min(nanoseconds, Self.maximumNanoseconds))
        let units: [(Int64, String)] = [
            (1, "n"), (1000, "u"), (1_000_000, "m"), (1_000_000_000, "S"), (60_000_000_000, "M"),
        ]
        for (unit, suffix) in units {
            let value = (nanoseconds + unit - 1) / unit
            if value < 100_000_000 { return "\(value)\(suffix)" }
        }
        return "\(nanoseconds / 3_600_000_000_000)H"
    }
}

extension Duration {
    /// Whole nanoseconds, clamped to what fits.
    var clampedNanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return seconds < 0 ? .min : .max }
        let (sum, sumOverflow) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
        return sumOverflow ? (seconds < 0 ? .min : .max) : sum
    }
}
