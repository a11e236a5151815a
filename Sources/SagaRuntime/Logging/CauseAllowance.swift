import Logging

/// Which line of a cause may be written, and how many were not.
struct CauseAllowance {
    /// Lines that were left out, with the last of them.
    struct Rest {
        var level: Logger.Level
        var message: Logger.Message
        var leftOut: Int
    }

    private struct Entry {
        var next: BootTime
        var rest: Rest?
    }

    private let interval: Duration
    private let capacity: Int
    /// By cause; nil: all that there was no room for.
    private var entries: [String?: Entry] = [:]

    init(interval: Duration, capacity: Int) {
        self.interval = interval
        self.capacity = capacity
    }

    /// - Returns: how many lines of the cause were left out before this one, which may be written; nil: it may not.
    mutating func admit(
        _ cause: String, _ level: Logger.Level, _ message: Logger.Message, at now: BootTime
    ) -> Int? {
        let key = self.key(of: cause, at: now)
        if let entry = self.entries[key], now < entry.next {
            let leftOut = (entry.rest?.leftOut ?? 0) + 1
            self.entries[key]?.rest = Rest(level: level, message: message, leftOut: leftOut)
            return nil
        }
        let leftOut = self.entries[key]?.rest?.leftOut ?? 0
        self.entries[key] = Entry(next: now + self.interval)
        return leftOut
    }

    /// What was left out of causes whose time is over for a quarter of it: had they come again, they would have said so
    /// themselves.
    mutating func takeQuiet(at now: BootTime) -> [Rest] {
        var quiet: [Rest] = []
        for (key, entry) in self.entries where now >= entry.next + self.interval / 4 {
            if let rest = entry.rest { quiet.append(rest) }
            self.entries[key] = nil
        }
        return quiet
    }

    private mutating func key(of cause: String, at now: BootTime) -> String? {
        if self.entries[cause] != nil || self.entries.count < self.capacity { return cause }
        // Those with nothing left to tell are as good as new.
        self.entries = self.entries.filter { now < $1.next || $1.rest != nil }
        return self.entries.count < self.capacity ? cause : nil
    }
}
