import Glibc

/// A time of the day, in this machine's zone.
public struct DailyTime: Sendable, Equatable {
    public var hour: Int
    public var minute: Int

    public init(hour: Int, minute: Int) {
        self.hour = hour
        self.minute = minute
    }

    /// Reads `02:00`; `nil` if it is no time of a day.
    public init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ (1...2).contains($0.count) && $0.allSatisfy(\.isASCIIDigit) }),
            let hour = Int(parts[0]), let minute = Int(parts[1]), hour < 24, minute < 60
        else { return nil }
        self.init(hour: hour, minute: minute)
    }

    /// The newest instant of this time that isn't after `now`; both in seconds since the epoch. On a day whose clocks leave the
    /// time out it is as much later.
    public func newest(before now: Int64) -> Int64 {
        for day in [0, 1] {
            var seconds = time_t(now)
            var local = tm()
            guard localtime_r(&seconds, &local) != nil else { break }
            local.tm_mday -= Int32(day)
            (local.tm_hour, local.tm_min, local.tm_sec) = (Int32(self.hour), Int32(self.minute), 0)
            // Which of them holds then is for mktime to say.
            local.tm_isdst = -1
            let instant = Int64(mktime(&local))
            if instant <= now { return instant }
        }
        return now
    }
}

extension Character {
    fileprivate var isASCIIDigit: Bool { self.isASCII && self.isNumber }
}
