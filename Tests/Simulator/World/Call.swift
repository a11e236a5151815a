/// What a service makes of a request: the answer, and how long until it leaves; no answer at all if it is `nil`.
struct Reply<Answer> {
    var answer: Answer?
    var after: Duration
}

extension Machine {
    /// Asks a service outside. `nil`: the caller gave up.
    ///
    /// What was not sent when the caller gives up is never sent; what was sent arrives, whatever becomes of the caller. A
    /// process that is frozen just before it sends, sends when it goes on.
    func ask<Answer: Sendable>(
        there: Duration, left: @escaping () -> Void = {}, _ serve: @escaping () -> Reply<Answer>
    ) async -> Answer? {
        let call = Call<Answer>(self)
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                guard call.begin(continuation) else { return }
                self.deliver(after: .microseconds(100)) {
                    guard !call.isOver else { return }
                    left()
                    Scheduler.shared.after(there) {
                        let reply = serve()
                        guard let answer = reply.answer else { return }
                        self.deliver(after: reply.after) { call.end(answer) }
                    }
                }
            }
        } onCancel: {
            call.cancel()
        }
    }
}

/// Unchecked: of one thread.
private final class Call<Answer: Sendable>: @unchecked Sendable {
    private let machine: Machine
    private var continuation: UnsafeContinuation<Answer?, Never>?
    private(set) var isOver = false

    init(_ machine: Machine) { self.machine = machine }

    func begin(_ continuation: UnsafeContinuation<Answer?, Never>) -> Bool {
        if self.machine.life == .dead { return false }
        if self.isOver {
            continuation.resume(returning: nil)
            return false
        }
        self.continuation = continuation
        return true
    }

    func end(_ answer: Answer?) {
        self.isOver = true
        self.continuation?.resume(returning: answer)
        self.continuation = nil
    }

    func cancel() {
        if self.machine.life != .dead { self.end(nil) }
    }
}
