import FoundationEssentials
import Glibc

/// The wall clock, for log lines and what people read.
enum WallClock {
    /// Microseconds since the Unix epoch.
    static func now() -> Int64 { Int64(Date().timeIntervalSince1970 * 1e6) }

    /// RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.123Z`. Years 0 to 9999.
    static func render(_ microseconds: Int64) -> String {
        var seconds = time_t(microseconds / 1_000_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        return String(unsafeUninitializedCapacity: 24) { bytes in
            var position = 0
            func append(_ number: Int, digits: Int, _ separator: Unicode.Scalar) {
                var rest = number
                for index in stride(from: position + digits - 1, through: position, by: -1) {
                    bytes[index] = UInt8(48 + rest % 10)
                    rest /= 10
                }
                bytes[position + digits] = UInt8(ascii: separator)
                position += digits + 1
            }
            append(max(0, Int(parts.tm_year) + 1900), digits: 4, "-")
            append(Int(parts.tm_mon) + 1, digits: 2, "-")
            append(Int(parts.tm_mday), digits: 2, "T")
            append(Int(parts.tm_hour), digits: 2, ":")
            append(Int(parts.tm_min), digits: 2, ":")
            append(Int(parts.tm_sec), digits: 2, ".")
            append(max(0, Int(microseconds % 1_000_000 / 1000)), digits: 3, "Z")
            return position
        }
    }
}
