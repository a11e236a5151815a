import Glibc
import Synchronization

/// Runs the tasks of one thread on that thread, one piece after the other, when it is told to: the same input then
/// always runs the same way.
///
/// It takes the place of the concurrent executor by the hook that the Swift runtime has for this. Tasks that other
/// threads set going are left to that executor, so that other tests are not disturbed.
///
/// `@unchecked Sendable`: touched on its own thread only.
final class SerialTasks: @unchecked Sendable {
    private var jobs: [UnownedJob] = []
    private var head = 0

    /// Calls `body` on this thread, which must end all tasks that it begins.
    static func with<Result>(_ body: (SerialTasks) -> Result) -> Result {
        Self.install
        let tasks = SerialTasks()
        pthread_setspecific(Self.key, Unmanaged.passUnretained(tasks).toOpaque())
        defer { pthread_setspecific(Self.key, nil) }
        return withExtendedLifetime(tasks) { body(tasks) }
    }

    var isIdle: Bool { self.head == self.jobs.count }

    /// Runs the pieces that are due now, not those that they make due.
    func runDue() {
        let end = self.jobs.count
        while self.head < end {
            let job = self.jobs[self.head]
            self.head += 1
            job.runSynchronously(on: ThisThread.shared.asUnownedTaskExecutor())
        }
        if self.isIdle {
            self.jobs.removeAll(keepingCapacity: true)
            self.head = 0
        }
    }

    // MARK: The hook

    private typealias Original = @convention(thin) (UnownedJob) -> Void
    private typealias Hook = @convention(thin) (UnownedJob, Original) -> Void

    /// What tasks may ask for their executor.
    private final class ThisThread: TaskExecutor {
        static let shared = ThisThread()

        func enqueue(_ job: UnownedJob) { SerialTasks.take(job) }
    }

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        precondition(pthread_key_create(&key, nil) == 0, "no key for the thread")
        return key
    }()

    @discardableResult
    private static func take(_ job: UnownedJob) -> Bool {
        guard let pointer = pthread_getspecific(Self.key) else { return false }
        Unmanaged<SerialTasks>.fromOpaque(pointer).takeUnretainedValue().jobs.append(job)
        return true
    }

    private static let install: Void = {
        guard let symbol = dlsym(dlopen(nil, RTLD_LAZY), "swift_task_enqueueGlobal_hook") else {
            preconditionFailure("the Swift runtime has no swift_task_enqueueGlobal_hook")
        }
        let hook: Hook = { job, original in if !SerialTasks.take(job) { original(job) } }
        symbol.assumingMemoryBound(to: Hook?.self).pointee = hook
    }()
}
