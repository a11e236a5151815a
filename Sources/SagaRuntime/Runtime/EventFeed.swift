import Synchronization

/// Brings committed events to the watchers of this process.
///
/// A watcher is a cursor over rows; the feed only spares it the reading. Nothing here is buffered without bound: a mailbox
/// that overflows forgets, and its watcher sees the gap and goes back to the rows.
final class EventFeed: Sendable {
    private struct State {
        var mailboxes: [SagaID: [ObjectIdentifier: Mailbox]] = [:]
        var isDraining = false
    }

    private let state = Mutex(State())

    func subscribe(_ id: SagaID) -> Mailbox {
        let mailbox = Mailbox()
        let isDraining = self.state.withLock { state in
            state.mailboxes[id, default: [:]][ObjectIdentifier(mailbox)] = mailbox
            return state.isDraining
        }
        if isDraining { mailbox.drain() }
        return mailbox
    }

    func unsubscribe(_ id: SagaID, _ mailbox: Mailbox) {
        self.state.withLock { state in
            state.mailboxes[id]?[ObjectIdentifier(mailbox)] = nil
            if state.mailboxes[id]?.isEmpty == true { state.mailboxes[id] = nil }
        }
    }

    /// Tells the watchers of `id`. `events` are committed and follow each other without gap.
    func publish(_ id: SagaID, _ events: [SagaEvent]) {
        guard !events.isEmpty else { return }
        let mailboxes = self.state.withLock { state in state.mailboxes[id].map { Array($0.values) } }
        for mailbox in mailboxes ?? [] { mailbox.deliver(events) }
    }

    /// Sends the watchers of `id` back to the rows, where they find out what is wrong with them.
    func publishGap(_ id: SagaID) {
        let mailboxes = self.state.withLock { state in state.mailboxes[id].map { Array($0.values) } }
        for mailbox in mailboxes ?? [] { mailbox.forget() }
    }

    /// The distinct sagas that are watched here.
    var watched: [SagaID] { self.state.withLock { Array($0.mailboxes.keys) } }
    func isWatched(_ id: SagaID) -> Bool { self.state.withLock { $0.mailboxes[id] != nil } }

    /// Ends all watching: this process is about to leave.
    func beginDraining() {
        let mailboxes = self.state.withLock { state in
            state.isDraining = true
            return state.mailboxes.values.flatMap(\.values)
        }
        for mailbox in mailboxes { mailbox.drain() }
    }

    /// One watcher's events, until it takes them.
    final class Mailbox: Sendable {
        /// Events that wait for a slow watcher; more, and it reads rows again.
        private static let capacity = 64

        enum Mail: Sendable {
            /// Without gap among themselves; the receiver checks them against its cursor.
            case events([SagaEvent])
            /// Something was forgotten: read the rows.
            case gap
            case draining
            /// The receiver's task was cancelled.
            case cancelled
        }

        private struct State {
            var events: [SagaEvent] = []
            var hasGap = false
            var isDraining = false
            var isCancelled = false
            var receiver: CheckedContinuation<Mail, Never>?

            mutating func take() -> Mail? {
                if self.isCancelled { return .cancelled }
                if self.isDraining { return .draining }
                if self.hasGap {
                    self.hasGap = false
                    self.events = []
                    return .gap
                }
                guard !self.events.isEmpty else { return nil }
                defer { self.events = [] }
                return .events(self.events)
            }
        }

        private let state = Mutex(State())

        func deliver(_ events: [SagaEvent]) {
            self.change { state in
                if let last = state.events.last, let first = events.first, first.sequence != last.sequence + 1 {
                    state.hasGap = true
                } else if state.events.count + events.count > Self.capacity {
                    state.hasGap = true
                } else {
                    state.events += events
                }
            }
        }

        func forget() { self.change { $0.hasGap = true } }

        func drain() { self.change { $0.isDraining = true } }

        private func change(_ change: (inout State) -> Void) {
            let (receiver, mail): (CheckedContinuation<Mail, Never>?, Mail?) = self.state.withLock { state in
                change(&state)
                guard let receiver = state.receiver, let mail = state.take() else { return (nil, nil) }
                state.receiver = nil
                return (receiver, mail)
            }
            if let receiver, let mail { receiver.resume(returning: mail) }
        }

        /// Waits for mail. One receiver at a time.
        func receive() async -> Mail {
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    let mail = self.state.withLock { state -> Mail? in
                        if let mail = state.take() { return mail }
                        state.receiver = continuation
                        return nil
                    }
                    if let mail { continuation.resume(returning: mail) }
                }
            } onCancel: {
                self.change { $0.isCancelled = true }
            }
        }
    }
}
