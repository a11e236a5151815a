import NIOCore
import Synchronization

/// A stream's messages on their way from the event loop to a task. What is in it is bounded by the stream's
/// flow-control window: credit goes back to the peer when the task takes a message.
final class InboundPipe: Sendable {
    /// Is told of each message that was taken: the credit that goes back for it, and its size with its prefix, in bytes.
    typealias Taken = @Sendable (_ credit: Int, _ size: Int) -> Void

    private enum Waiter {
        /// Somebody waits for the next message, or the end.
        case next(CheckedContinuation<MessageAssembler.Message?, any Error>)
        /// Somebody waits for the end.
        case all(CheckedContinuation<[MessageAssembler.Message], any Error>)
    }

    private struct State {
        var messages = InboundMessageQueue()
        var end: Result<Void, RPCError>?
        var waiter: Waiter?
        var taken: Taken?
    }

    private let state: Mutex<State>
    /// The largest message, in bytes, once inflated.
    private let limit: Int
    private let side: StaticString

    init(limit: Int, side: StaticString) {
        self.limit = limit
        self.side = side
        self.state = Mutex(State())
    }

    // MARK: The event loop's side

    /// `taken` is called on any thread, and let go at the end; not kept if that has come already, as it has for a
    /// call that was cancelled just before its response's headers came.
    func attach(taken: @escaping Taken) {
        self.state.withLock { if $0.end == nil { $0.taken = taken } }
    }

    func append(_ message: MessageAssembler.Message) {
        let (continuation, taken) = self.state.withLock {
            state -> (CheckedContinuation<MessageAssembler.Message?, any Error>?, Taken?) in
            guard state.end == nil else { return (nil, nil) }
            switch state.waiter {
            case .next(let continuation):
                state.waiter = nil
                return (continuation, state.taken)
            case .all:
                // Who collects all takes each at once.
                state.messages.append(message)
                return (nil, state.taken)
            case nil:
                state.messages.append(message)
                return (nil, nil)
            }
        }
        taken?(message.credit, message.size)
        continuation?.resume(returning: message)
    }

    /// Nothing more will come. Messages that wait are still delivered, unless `discarding`.
    func finish(_ end: Result<Void, RPCError>, discarding: Bool = false) {
        let (waiter, messages) = self.state.withLock { state -> (Waiter?, [MessageAssembler.Message]) in
            guard state.end == nil else { return (nil, []) }
            state.end = end
            state.taken = nil
            if discarding { state.messages.removeAll() }
            let waiter = state.waiter
            state.waiter = nil
            guard case .all = waiter else { return (waiter, []) }
            return (waiter, state.messages.takeAll())
        }
        switch waiter {
        case .next(let continuation): continuation.resume(with: end.map { nil }.mapError { $0 })
        case .all(let continuation): continuation.resume(with: end.map { messages }.mapError { $0 })
        case nil: break
        }
    }

    // MARK: The reader's side

    private enum Next {
        case message(MessageAssembler.Message, Taken?)
        case end(Result<Void, RPCError>)
    }

    /// The next message, inflated, and whether it came compressed; nil at the end. One reader at a time.
    func next() async throws(RPCError) -> (bytes: ByteBuffer, isCompressed: Bool)? {
        guard let message = try await self.nextRaw() else { return nil }
        guard message.compression != nil else { return (message.bytes, false) }
        return (try self.inflate(message), true)
    }

    /// All messages up to the end, inflated.
    func all() async throws(RPCError) -> [(bytes: ByteBuffer, isCompressed: Bool)] {
        var result: [(bytes: ByteBuffer, isCompressed: Bool)] = []
        for message in try await self.allRaw() {
            result.append((try self.inflate(message), message.compression != nil))
        }
        return result
    }

    /// After a message that cannot be inflated there are none: the stream is broken.
    private func inflate(_ message: MessageAssembler.Message) throws(RPCError) -> ByteBuffer {
        do throws(RPCError) {
            return try message.decoded(limit: self.limit, side: self.side)
        } catch {
            self.state.withLock { state in
                state.end = .failure(error)
                // It holds the call, which holds this pipe: kept beyond the end it would keep both for ever.
                state.taken = nil
                state.messages.removeAll()
            }
            throw error
        }
    }

    private func nextRaw() async throws(RPCError) -> MessageAssembler.Message? {
        if let next = self.state.withLock({ Self.takeNext(&$0) }) { return try Self.deliver(next) }
        do {
            return try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { continuation in
                    let next = self.state.withLock { state -> Next? in
                        if let next = Self.takeNext(&state) { return next }
                        if let refusal = Self.refusal(state) { return .end(.failure(refusal)) }
                        state.waiter = .next(continuation)
                        return nil
                    }
                    guard let next else { return }
                    continuation.resume(with: Result { try Self.deliver(next) })
                }
            } onCancel: {
                self.cancelWaiter()
            }
        } catch {
            throw RPCError(thrownInCall: error)
        }
    }

    private func allRaw() async throws(RPCError) -> [MessageAssembler.Message] {
        do {
            return try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { continuation in
                    let result = self.state.withLock { state -> Result<[MessageAssembler.Message], any Error>? in
                        if let end = state.end {
                            let messages = state.messages.takeAll()
                            return end.map { messages }.mapError { $0 }
                        }
                        if let refusal = Self.refusal(state) { return .failure(refusal) }
                        state.waiter = .all(continuation)
                        return nil
                    }
                    if let result { continuation.resume(with: result) }
                }
            } onCancel: {
                self.cancelWaiter()
            }
        } catch {
            throw RPCError(thrownInCall: error)
        }
    }

    private func cancelWaiter() {
        let waiter = self.state.withLock { state -> Waiter? in
            defer { state.waiter = nil }
            return state.waiter
        }
        switch waiter {
        case .next(let continuation): continuation.resume(throwing: CancellationError())
        case .all(let continuation): continuation.resume(throwing: CancellationError())
        case nil: break
        }
    }

    /// Why nobody can wait now, if so.
    private static func refusal(_ state: State) -> RPCError? {
        if state.waiter != nil { return RPCError(.internal, "two tasks read the messages of one call") }
        return Task.isCancelled ? RPCError(.cancelled, "the call was cancelled") : nil
    }

    private static func takeNext(_ state: inout State) -> Next? {
        guard let message = state.messages.popFirst() else { return state.end.map { .end($0) } }
        return .message(message, state.taken)
    }

    private static func deliver(_ next: Next) throws(RPCError) -> MessageAssembler.Message? {
        switch next {
        case .message(let message, let taken):
            taken?(message.credit, message.size)
            return message
        case .end(let end):
            try end.get()
            return nil
        }
    }
}
