import NIOCore
import Synchronization

/// What the connections of one event loop share: a mailbox from other threads, timers, a buffer to write into.
///
/// `@unchecked Sendable`: the mailbox is behind its lock, everything else is touched on the event loop only.
final class EventLoopContext: @unchecked Sendable {
    let eventLoop: any EventLoop
    private let mailbox = Mutex(Mailbox())

    private struct Mailbox {
        var jobs: [@Sendable () -> Void] = []
        /// The event loop is about to go away: jobs of handlers that outlast it are dropped.
        var isClosed = false
    }

    /// Lent to the session that is being drained.
    var scratch = ByteBuffer()
    private var timers = TimerQueue()
    /// When the event loop will call us for the timers.
    private var wakeUp: NIODeadline?
    /// Connections with something to write, to be flushed at the end of this tick.
    private var unflushed: [HTTP2Connection] = []
    private var flushesAtEndOfTick = false

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    // MARK: Mailbox

    /// Runs the job on the event loop: now, if this is its thread, else together with what else was posted meanwhile.
    /// Replies of many handlers that finish at about the same time thus share one wake-up and one write.
    func run(_ job: @escaping @Sendable () -> Void) {
        if self.eventLoop.inEventLoop {
            job()
        } else {
            let wasEmpty = self.mailbox.withLock { mailbox in
                guard !mailbox.isClosed else { return false }
                mailbox.jobs.append(job)
                return mailbox.jobs.count == 1
            }
            if wasEmpty { self.eventLoop.execute { self.emptyMailbox() } }
        }
    }

    private func emptyMailbox() {
        let jobs = self.mailbox.withLock { mailbox in
            let jobs = mailbox.jobs
            mailbox.jobs = []
            return jobs
        }
        self.flushesAtEndOfTick = true
        for job in jobs { job() }
        self.flushAll()
    }

    /// No job will be taken any more.
    func closeMailbox() { self.mailbox.withLock { $0.isClosed = true } }

    // MARK: Flushing

    /// The connection is flushed at the end of this tick, once, whoever asks for it.
    func flushLater(_ connection: HTTP2Connection) {
        self.unflushed.append(connection)
        guard !self.flushesAtEndOfTick else { return }
        self.flushesAtEndOfTick = true
        self.eventLoop.execute { self.flushAll() }
    }

    private func flushAll() {
        self.flushesAtEndOfTick = false
        while !self.unflushed.isEmpty {
            let connections = self.unflushed
            self.unflushed = []
            for connection in connections { connection.flushIfNeeded() }
        }
    }

    // MARK: Timers

    func schedule(_ node: any TimerNode, at deadline: NIODeadline) {
        self.timers.schedule(node, at: deadline)
        self.setWakeUp()
    }

    func cancelTimer(_ node: any TimerNode) { self.timers.cancel(node) }

    /// Asks the event loop for a call only if there is none by then: with calls that last much shorter than their
    /// deadlines, that is about one timer per deadline's length and not one per call.
    private func setWakeUp() {
        guard let earliest = self.timers.earliest else { return }
        if let wakeUp = self.wakeUp, wakeUp <= earliest { return }
        self.wakeUp = earliest
        self.eventLoop.scheduleTask(deadline: earliest) { self.wokenUp(at: earliest) }
    }

    private func wokenUp(at deadline: NIODeadline) {
        if self.wakeUp == deadline { self.wakeUp = nil }
        let now = NIODeadline.now()
        while let node = self.timers.popDue(at: now) { node.timerFired(at: now) }
        self.setWakeUp()
    }
}
