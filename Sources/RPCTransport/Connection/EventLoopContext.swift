import NIOCore
import Synchronization

/// What the connections of one event loop share: a mailbox from other threads, timers, a buffer to write into. It is also
/// the executor of handlers that stay on the event loop.
///
/// `@unchecked Sendable`: the mailbox is behind its lock, everything else is touched on the event loop only.
final class EventLoopContext: TaskExecutor, @unchecked Sendable {
    /// How long what is put off to another turn waits: any time at all lets the event loop look at its sockets first.
    static let timeToNextTurn = TimeAmount.microseconds(50)
    /// Timers that fire in one turn: to turn a connection away, which many of them do, takes 70 microseconds.
    private static let timersInTurn = 8

    let eventLoop: any EventLoop
    private let mailbox = Mutex(Mailbox())

    private enum Job {
        case closure(@Sendable () -> Void)
        /// Of a task that stays on the event loop.
        case task(UnownedJob)
    }

    private struct Mailbox {
        var jobs: [Job] = []
        /// The event loop is about to go away: jobs of handlers that outlast it are dropped.
        var isClosed = false
    }

    let events = EventStore()
    /// What connections read into, each in its turn; empty while it is lent.
    @exclusivity(unchecked) private var readBuffer = ByteBuffer()
    /// Lent to the session that is being drained.
    @exclusivity(unchecked) var scratch = ByteBuffer()
    /// Those that sockets had not taken at once, the oldest first.
    @exclusivity(unchecked) private var pendingScratches: [ByteBuffer] = []
    @exclusivity(unchecked) private var timers = TimerQueue()
    /// When the event loop will call us for the timers.
    @exclusivity(unchecked) private var wakeUp: NIODeadline?
    /// Connections with something to write, to be flushed at the end of this tick.
    @exclusivity(unchecked) private var unflushed: [HTTP2Connection] = []
    @exclusivity(unchecked) private var flushesAtEndOfTick = false

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    // MARK: Mailbox

    /// True on the event loop's thread.
    var isCurrent: Bool { self.eventLoop.inEventLoop }

    /// Runs the job on the event loop: now, if this is its thread, else together with what else was posted meanwhile.
    /// Replies of many handlers that finish at about the same time thus share one wake-up and one write.
    func run(_ job: @escaping @Sendable () -> Void) {
        if self.eventLoop.inEventLoop {
            job()
        } else {
            self.post(.closure(job))
        }
    }

    /// Runs a part of a task on the event loop, never right here: whoever resumes a task may hold a lock.
    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        // A handler that outlasts its event loop comes to its end elsewhere.
        if !self.post(.task(job)) { globalConcurrentExecutor.enqueue(job) }
    }

    /// False if the mailbox is closed.
    @discardableResult
    private func post(_ job: Job) -> Bool {
        let (isOpen, wasEmpty) = self.mailbox.withLock { mailbox in
            guard !mailbox.isClosed else { return (false, false) }
            mailbox.jobs.append(job)
            return (true, mailbox.jobs.count == 1)
        }
        if wasEmpty { self.eventLoop.execute { self.emptyMailbox() } }
        return isOpen
    }

    private func emptyMailbox() {
        let jobs = self.mailbox.withLock { mailbox in
            let jobs = mailbox.jobs
            mailbox.jobs = []
            return jobs
        }
        self.flushesAtEndOfTick = true
        for job in jobs {
            switch job {
            case .closure(let closure): closure()
            case .task(let job): job.runSynchronously(on: self.asUnownedTaskExecutor())
            }
        }
        self.flushAll()
    }

    /// No job will be taken any more.
    func closeMailbox() { self.mailbox.withLock { $0.isClosed = true } }

    // MARK: Reading

    /// A buffer with room for exactly so much, the last reference to its memory unless somebody keeps what came in it.
    func lendReadBuffer(_ count: Int) -> ByteBuffer {
        var buffer = ByteBuffer()
        swap(&buffer, &self.readBuffer)
        buffer.clear(minimumCapacity: count)
        buffer.moveWriterIndex(to: count)
        guard var part = buffer.readSlice(length: count) else { return buffer }
        part.moveWriterIndex(to: 0)
        return part
    }

    /// The memory of a buffer that was read comes to use again, if nobody keeps it by then.
    func returnReadBuffer(_ buffer: ByteBuffer) {
        if buffer.storageCapacity >= self.readBuffer.storageCapacity { self.readBuffer = buffer }
    }

    // MARK: Flushing

    /// Makes the storage of a buffer that was written the next scratch. If the socket took it, nobody else holds the
    /// storage now and the next `clear` keeps it; if not, others have their turn first, and fresh memory is the exception.
    func reuse(_ buffer: ByteBuffer, isPending: Bool) {
        guard isPending else {
            self.scratch = buffer
            return
        }
        self.pendingScratches.append(buffer)
        self.scratch = self.pendingScratches.count > 8 ? self.pendingScratches.removeFirst() : ByteBuffer()
    }

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
        var left = Self.timersInTurn
        while left > 0, let node = self.timers.popDue(at: now) {
            node.timerFired(at: now)
            left -= 1
        }
        if left > 0 { return self.setWakeUp() }
        // Thousands may be due at once, e.g. handshakes that all began together.
        let next = now + Self.timeToNextTurn
        self.wakeUp = next
        self.eventLoop.scheduleTask(deadline: next) { self.wokenUp(at: next) }
    }
}
