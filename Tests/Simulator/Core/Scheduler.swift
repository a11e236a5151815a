import Glibc

/// Runs all tasks of this process on one thread, in an order that the seed picks, in virtual time.
///
/// Swift's runtime hands every job that could run on any thread to `swift_task_enqueueGlobal_hook`. The jobs wait here.
/// When no job is left, time jumps to the next timer. Nothing else makes time pass, so an hour takes as long as its work.
///
/// `Task.sleep` and `Task.yield` go past the hook in Swift 6.3; the engine uses neither (scripts/check-imports).
///
/// Unchecked: everything here happens on the thread that called `install`.
final class Scheduler: @unchecked Sendable {
    static let shared = Scheduler()

    private var ready: [UnownedJob] = []
    private var timers = Timers()
    private var chance = Chance(seed: 0, stream: "scheduler")
    fileprivate var thread = pthread_self()
    /// Virtual nanoseconds since the run began.
    private(set) var now: Int64 = 0
    private(set) var jobsRun = 0

    private init() {}

    // MARK: The hook

    private typealias Original = @convention(thin) (UnownedJob) -> Void
    private typealias Hook = @convention(thin) (UnownedJob, Original) -> Void

    /// From now on the jobs that this thread brings about wait for `run`. Those of other threads (what was started before
    /// the simulation) go on as they did.
    func install() {
        guard let symbol = dlsym(dlopen(nil, RTLD_LAZY), "swift_task_enqueueGlobal_hook") else {
            fatalError("no swift_task_enqueueGlobal_hook: the simulator needs the dynamic Swift runtime")
        }
        self.thread = pthread_self()
        symbol.assumingMemoryBound(to: Hook?.self).pointee = { job, original in
            let scheduler = Scheduler.shared
            if pthread_equal(pthread_self(), scheduler.thread) != 0 {
                scheduler.ready.append(job)
            } else {
                original(job)
            }
        }
    }

    // MARK: A run

    /// Forgets what the run before left: its tasks never go on, and are never freed either.
    func begin(seed: UInt64) {
        self.ready = []
        self.timers.removeAll()
        self.now = 0
        self.jobsRun = 0
        self.chance = Chance(seed: seed, stream: "scheduler")
    }

    func after(_ delay: Duration, _ action: @escaping () -> Void) {
        let due = self.now + max(0, delay.nanoseconds)
        self.timers.push(due: due, order: self.chance.next(), action)
    }

    enum End: Equatable { case done, outOfTime, nothingLeft, standsStill }

    /// Runs until `isDone`, which is asked whenever no job is left.
    func run(until limit: Int64, _ isDone: () -> Bool) -> End {
        var jobsOfInstant = 0
        while true {
            while !self.ready.isEmpty {
                let index = self.chance.index(below: self.ready.count)
                self.ready.swapAt(index, self.ready.count - 1)
                let job = self.ready.removeLast()
                self.jobsRun += 1
                jobsOfInstant += 1
                // Far beyond what any instant needs: somebody spins.
                if jobsOfInstant > 500_000 { return .standsStill }
                runJob(job, anyExecutor)
            }
            if isDone() { return .done }
            guard let timer = self.timers.pop() else { return .nothingLeft }
            if timer.due > limit { return .outOfTime }
            if timer.due > self.now { jobsOfInstant = 0 }
            self.now = timer.due
            timer.action()
        }
    }
}

/// The runtime's own entry for an executor that runs a job.
@_silgen_name("swift_job_run")
private func runJob(_ job: UnownedJob, _ executor: UnownedSerialExecutor)

/// What the runtime calls the generic executor: an identity and an implementation of zero.
private let anyExecutor = unsafeBitCast((0, 0), to: UnownedSerialExecutor.self)

extension Duration {
    var nanoseconds: Int64 {
        let (seconds, attoseconds) = self.components
        return seconds &* 1_000_000_000 &+ attoseconds / 1_000_000_000
    }
}
