// Sagas that have nothing to do for a while.

extension SagaMachine {
    /// What it waits for, while `next` says that it does.
    func waiting(now: Moment) -> SagaWait? {
        let isUndo = self.snapshot.status == .compensating
        guard self.snapshot.status.isActive,
            let (side, instant) = self.due.filter({ $0.key.isUndo == isUndo && $0.value > now.uptime })
                .min(by: { ($0.value, $0.key.step) < ($1.value, $1.key.step) })
        else { return nil }
        var wait = self.waits[side] ?? SagaWait(reason: .backOff)
        if wait.reason == .breakerOpen, wait.until == nil { return wait }
        wait.until = now.time + (instant - now.uptime)
        if !isUndo, !self.isPastPivot { wait.until = min(wait.until ?? self.snapshot.deadline, self.snapshot.deadline) }
        return wait
    }

    /// Puts the saga to sleep: it belongs to nobody until what it waits for has come.
    func sleepRecord(_ wait: SagaWait, now: Moment) -> SagaRecord {
        var record = self.record(kind: .sleep, now: now.time) { _ in }
        var sleep = SagaSleep(wait: wait, isUnsent: self.isUnsent)
        // A question is asked again anyway, so one instant for all that is unanswered does.
        let until = self.unanswered.values.filter { !$0.isSettled }.map(\.until).max()
        sleep.doubtUntil = until.map { now.time - (now.uptime - $0) }
        record.sleep = sleep
        record.commandsSeen = self.commandsSeen
        return record
    }
}
