// Sagas that have nothing to do for a while.

extension SagaMachine {
    /// How long it sleeps at most where it waits for several dependencies: a row names one.
    private static let longestGlance: Duration = .seconds(30)

    /// What it waits for, while `next` says that it does: for an instant, for a dependency, or for whichever comes first.
    func waiting(now: Moment) -> SagaWait? {
        let isUndo = self.snapshot.status == .compensating
        guard self.snapshot.status.isActive else { return nil }
        let waits = self.due.filter { $0.key.isUndo == isUndo && $0.value > now.uptime }
            .map { (step: $0.key.step, instant: $0.value, wait: self.waits[$0.key] ?? SagaWait(reason: .backOff)) }
        // Those that nothing but their dependency ends.
        let untimed = waits.filter { $0.wait.reason == .breakerOpen && $0.wait.until == nil }
        let timed = waits.filter { $0.wait.reason != .breakerOpen || $0.wait.until != nil }
            .min { ($0.instant, $0.step) < ($1.instant, $1.step) }
        guard var wait = untimed.min(by: { $0.step < $1.step })?.wait ?? timed?.wait else { return nil }
        let isForOne = untimed.allSatisfy { $0.wait == wait }
        let instants = [timed?.instant, isForOne ? nil : now.uptime + Self.longestGlance].compactMap(\.self)
        wait.until = instants.min().map { now.time + ($0 - now.uptime) }
        if !isUndo, !self.isPastPivot { wait.until = min(wait.until ?? self.snapshot.deadline, self.snapshot.deadline) }
        return wait
    }

    /// Puts the saga to sleep: it belongs to nobody until what it waits for has come.
    func sleepRecord(_ wait: SagaWait, now: Moment) -> SagaRecord {
        var record = self.record(kind: .sleep, now: now.time) { _ in }
        var sleep = SagaSleep(now: now.time, wait: wait, isUnsent: self.isUnsent)
        // A question is asked again anyway, so one instant for all that is unanswered does.
        let until = self.unanswered.values.filter { !$0.isSettled }.map(\.until).max()
        sleep.doubtUntil = until.map { now.time - (now.uptime - $0) }
        record.sleep = sleep
        record.commandsSeen = self.commandsSeen
        return record
    }
}
