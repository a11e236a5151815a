import Glibc

@testable import SagaRuntime

/// One real connection to the real server, on a thread of its own that works only while the scheduler waits for it.
///
/// Unchecked: `order` and `answer` change hands with the two semaphores.
final class Backend: @unchecked Sendable {
    enum Order {
        case pipeline([SQLQuery], LibpqSession.Transaction)
        case simple(String)
        case end
    }
    typealias Answer = Result<[SQLRows], PostgresError>

    private let configuration: PostgresConfiguration
    private let orders = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private let answers = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private var order = Order.end
    private var answer: Answer = .success([])
    private(set) var isUsable = true
    /// Something was started, and not answered.
    var isBusy = false
    /// Between BEGIN and its end.
    var isInTransaction = false
    /// Of the server's process.
    private(set) var pid: Int32 = 0

    /// No query of the simulator's is given up because the machine is slow.
    private static let patience = Duration.seconds(600)

    init(_ configuration: PostgresConfiguration) throws(PostgresError) {
        self.configuration = configuration
        sem_init(self.orders, 0, 0)
        sem_init(self.answers, 0, 0)
        try DedicatedThread.start(name: "backend") { self.work() }
        if case .failure(let error) = self.wait() { throw error }
    }

    deinit {
        sem_destroy(self.orders)
        sem_destroy(self.answers)
        self.orders.deallocate()
        self.answers.deallocate()
    }

    // MARK: For the scheduler's thread

    func start(_ order: Order) {
        self.order = order
        sem_post(self.orders)
    }

    /// Waits for the answer to what was started.
    func wait() -> Answer {
        while sem_wait(self.answers) != 0 {}
        return self.take()
    }

    /// `nil` if there is no answer yet after a few milliseconds.
    func waitBriefly() -> Answer? {
        var until = timespec()
        clock_gettime(CLOCK_REALTIME, &until)
        until.tv_nsec += 3_000_000
        if until.tv_nsec >= 1_000_000_000 {
            until.tv_nsec -= 1_000_000_000
            until.tv_sec += 1
        }
        while sem_timedwait(self.answers, &until) != 0 {
            if errno == ETIMEDOUT { return nil }
        }
        return self.take()
    }

    private func take() -> Answer {
        if case .failure(let error) = self.answer, error.code != .server { self.isUsable = false }
        return self.answer
    }

    func run(_ order: Order) -> Answer {
        self.start(order)
        return self.wait()
    }

    func end() {
        guard self.isUsable else { return }
        self.isUsable = false
        self.start(.end)
    }

    // MARK: Its own thread

    private func work() {
        do throws(PostgresError) {
            var session = try LibpqSession.connect(self.configuration)
            self.pid = session.info.backendPID
            sem_post(self.answers)
            while true {
                while sem_wait(self.orders) != 0 {}
                switch self.order {
                case .end:
                    return
                case .pipeline(let queries, let transaction):
                    self.answer = Self.result { () throws(PostgresError) in
                        try session.run(queries, transaction, .now + Self.patience)
                    }
                case .simple(let sql):
                    self.answer = Self.result { () throws(PostgresError) in
                        try session.execute(sql, .now + Self.patience)
                        return []
                    }
                }
                sem_post(self.answers)
            }
        } catch {
            self.answer = .failure(error)
            sem_post(self.answers)
        }
    }

    private static func result(_ body: () throws(PostgresError) -> [SQLRows]) -> Answer {
        do throws(PostgresError) {
            return .success(try body())
        } catch {
            return .failure(error)
        }
    }
}
