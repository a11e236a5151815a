package import NIOCore

/// Lets one log line a second through for each subject, and counts those that are left out: who makes the same thing happen
/// a thousand times must not fill a disk with it.
package struct LogAllowance<Subject: Hashable & Sendable>: Sendable {
    /// What the line that may be written should tell.
    package struct Line: Sendable, Equatable {
        /// Lines of the subject that were left out since its last one.
        package var leftOut = 0
        /// Lines of subjects that were forgotten since, or for which there was no room.
        package var leftOutOfOthers = 0
    }

    private struct Entry {
        var next: NIODeadline
        var leftOut = 0
    }

    private static var interval: TimeAmount { .seconds(1) }

    /// How many subjects are remembered, which is also the most lines a second.
    private let capacity: Int
    private var entries: [Subject: Entry] = [:]
    private var leftOutOfOthers = 0

    package init(capacity: Int) { self.capacity = capacity }

    /// - Parameter isBusy: there is nobody to write a line now.
    /// - Returns: nil if the line is to be left out.
    package mutating func admit(_ subject: Subject, at now: NIODeadline, isBusy: Bool = false) -> Line? {
        if let entry = self.entries[subject], isBusy || now < entry.next {
            self.entries[subject]?.leftOut += 1
            return nil
        }
        if self.entries[subject] == nil, self.entries.count >= self.capacity { self.forget(at: now) }
        guard !isBusy, self.entries[subject] != nil || self.entries.count < self.capacity else {
            self.leftOutOfOthers += 1
            return nil
        }
        let line = Line(
            leftOut: self.entries[subject]?.leftOut ?? 0, leftOutOfOthers: self.leftOutOfOthers)
        self.entries[subject] = Entry(next: now + Self.interval)
        self.leftOutOfOthers = 0
        return line
    }

    /// Those that may have a line again are as good as new.
    private mutating func forget(at now: NIODeadline) {
        self.entries = self.entries.filter { _, entry in
            if now < entry.next { return true }
            self.leftOutOfOthers += entry.leftOut
            return false
        }
    }
}
