import Glibc
import Synchronization

/// What a connection's users hand to its thread, and what the thread lets them see.
final class ConnectionMailbox: Sendable {
    typealias Reply = CheckedContinuation<Result<[SQLRows], PostgresError>, Never>

    enum Work: Sendable {
        case pipeline([SQLQuery], LibpqSession.Transaction)
        case simple(String)
        case listen(channel: String, AsyncThrowingStream<String, any Error>.Continuation)
    }

    struct Request: Sendable {
        var work: Work
        var timeout: Duration?
        var reply: Reply
    }

    enum Next {
        case request(Request)
        /// Nothing to do: sleep until the wake-up pipe or the socket is readable.
        case idle
        case close
    }

    private struct State {
        var requests: [Request] = []
        var isSleeping = false
        var isLost = false
        var isClosing = false
        /// Set once, when the thread has ended or is about to.
        var end: PostgresError?
        var closers: [CheckedContinuation<Void, Never>] = []
        /// The socket while the session owns it, else -1.
        var socket: Int32 = -1
        var losesNextReply = false
    }

    let wakeUp: WakeUpPipe
    private let state = Mutex(State())
    /// More waiting requests than this on one connection are refused.
    private static let maximumRequests = 1024

    init() throws(PostgresError) { self.wakeUp = try WakeUpPipe() }

    // MARK: For users

    var isOpen: Bool { self.state.withLock { $0.end == nil && !$0.isClosing && !$0.isLost } }

    /// Queues a request; its reply is resumed exactly once, here if it can't be queued.
    func post(_ request: Request) {
        let (refusal, wakes): (PostgresError?, Bool) = self.state.withLock { state in
            if let end = state.end { return (Self.refusal(after: end), false) }
            if state.isClosing { return (PostgresError(.closed, "the connection is closed"), false) }
            if state.requests.count >= Self.maximumRequests {
                return (PostgresError(.overloaded, "too many requests wait for the connection"), false)
            }
            state.requests.append(request)
            defer { state.isSleeping = false }
            return (nil, state.isSleeping)
        }
        if wakes { self.wakeUp.signal() }
        if let refusal { request.reply.resume(returning: .failure(refusal)) }
    }

    /// Asks the thread to end after what it is doing.
    func close() {
        self.state.withLock { $0.isClosing = true }
        self.wakeUp.signal()
    }

    /// Resumes `closer` once the session is gone.
    func close(resuming closer: CheckedContinuation<Void, Never>) {
        let isEnded = self.state.withLock { state in
            state.isClosing = true
            if state.end == nil { state.closers.append(closer) }
            return state.end != nil
        }
        if isEnded { closer.resume() } else { self.wakeUp.signal() }
    }

    /// Shuts the socket down under the session's feet.
    func sever() {
        self.state.withLock { if $0.socket >= 0 { shutdown($0.socket, Int32(SHUT_RDWR)) } }
    }

    func loseNextReply() { self.state.withLock { $0.losesNextReply = true } }

    // MARK: For the thread

    func next() -> Next {
        self.state.withLock { state in
            if state.isClosing { return .close }
            if state.requests.isEmpty {
                state.isSleeping = true
                return .idle
            }
            state.isSleeping = false
            return .request(state.requests.removeFirst())
        }
    }

    func takeLosesNextReply() -> Bool {
        self.state.withLock { state in
            defer { state.losesNextReply = false }
            return state.losesNextReply
        }
    }

    /// The session can't be used again: so that `isOpen` says so by the time the reply arrives.
    func sessionIsLost() { self.state.withLock { $0.isLost = true } }

    func sessionStarted(socket: Int32) { self.state.withLock { $0.socket = socket } }

    /// To be called before the session's socket is closed: its number may then be someone else's.
    func sessionWillEnd(_ reason: PostgresError) {
        let requests = self.state.withLock { state in
            state.socket = -1
            state.end = reason
            defer { state.requests = [] }
            return state.requests
        }
        // Never sent.
        for request in requests { request.reply.resume(returning: .failure(Self.refusal(after: reason))) }
    }

    func sessionEnded() {
        let closers = self.state.withLock { state in
            defer { state.closers = [] }
            return state.closers
        }
        for closer in closers { closer.resume() }
    }

    private static func refusal(after end: PostgresError) -> PostgresError {
        PostgresError(end.code, end.message, sqlstate: end.sqlstate)
    }
}
