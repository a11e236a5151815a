import Dispatch
import Glibc
import NIOCore
import NIOEmbedded
import Synchronization

/// The event loop of a channel in memory, which other threads may post to: a handler may get to one (inflating a request
/// does), and comes back by the mailbox.
final class HarnessEventLoop: EventLoop {
    private let embedded: EmbeddedEventLoop
    private let thread = pthread_self()
    private let posted = Mutex<[@Sendable () -> Void]>([])

    init(_ embedded: EmbeddedEventLoop) { self.embedded = embedded }

    var inEventLoop: Bool { pthread_equal(pthread_self(), self.thread) != 0 }

    func execute(_ task: @escaping @Sendable () -> Void) {
        if self.inEventLoop { self.embedded.execute(task) } else { self.posted.withLock { $0.append(task) } }
    }

    func scheduleTask<Result>(
        deadline: NIODeadline, _ task: @escaping @Sendable () throws -> Result
    ) -> Scheduled<Result> { self.embedded.scheduleTask(deadline: deadline, task) }

    func scheduleTask<Result>(
        in delay: TimeAmount, _ task: @escaping @Sendable () throws -> Result
    ) -> Scheduled<Result> { self.embedded.scheduleTask(in: delay, task) }

    func shutdownGracefully(queue: DispatchQueue, _ callback: @escaping @Sendable ((any Error)?) -> Void) {
        callback(nil)
    }

    /// Does what is due, posted things too.
    func run() {
        let posted = self.posted.withLock { posted in
            defer { posted = [] }
            return posted
        }
        for task in posted { self.embedded.execute(task) }
        self.embedded.run()
    }

    /// One more channel on this loop.
    func makeChannel() -> EmbeddedChannel { EmbeddedChannel(loop: self.embedded) }

    /// Comes to the end of all time: a timer that nobody cancelled holds its channel, and the channel this loop.
    func end() {
        self.run()
        self.embedded.advanceTime(to: .distantFuture)
    }
}
