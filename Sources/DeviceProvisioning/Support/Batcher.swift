import Synchronization

/// Gathers requests that arrive together and performs them as one: natural batching, without a timer.
///
/// The first request starts at once; those that arrive while `maximumInFlight` batches run wait and make up the next one.
/// What waits is taken out again when its task is cancelled. What is under way can't be cancelled: batches are bounded by
/// the time limits of whatever performs them.
final class Batcher<Request: Sendable, Reply: Sendable, Failure: Error>: Sendable {
    /// One reply per request, in the same order.
    typealias Perform = @Sendable ([Request]) async -> [Result<Reply, Failure>]

    private struct Waiting: Sendable {
        var id: UInt64
        var request: Request
        var continuation: CheckedContinuation<Result<Reply, Failure>, Never>
    }

    private enum Next {
        case wait, run([Waiting]), refuse
    }

    private struct State {
        var queue: [Waiting] = []
        var inFlight = 0
        var nextID: UInt64 = 0
    }

    private let maximumBatch: Int
    private let maximumInFlight: Int
    private let maximumQueued: Int
    private let overflow: Failure
    private let perform: Perform
    private let state = Mutex(State())

    /// - Parameters:
    ///   - maximumQueued: requests beyond this many waiting ones fail with `overflow`.
    ///   - perform: must answer every request.
    init(
        maximumBatch: Int, maximumInFlight: Int, maximumQueued: Int, overflow: Failure, perform: @escaping Perform
    ) {
        self.maximumBatch = maximumBatch
        self.maximumInFlight = maximumInFlight
        self.maximumQueued = maximumQueued
        self.overflow = overflow
        self.perform = perform
    }

    /// - Parameter withdrawn: what a request fails with whose task is cancelled while it waits; `nil`: it is performed all
    ///   the same.
    func submit(_ request: Request, withdrawn: Failure? = nil) async throws(Failure) -> Reply {
        let id = self.state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let next = self.state.withLock { state -> Next in
                    guard state.queue.count < self.maximumQueued else { return .refuse }
                    state.queue.append(Waiting(id: id, request: request, continuation: continuation))
                    guard state.inFlight < self.maximumInFlight else { return .wait }
                    state.inFlight += 1
                    return .run(self.takeBatch(&state))
                }
                switch next {
                case .wait:
                    // Cancelled before it had its place: nobody else takes it out.
                    if Task.isCancelled { self.withdraw(id, withdrawn) }
                case .run(let batch): Task { await self.run(batch) }
                case .refuse: continuation.resume(returning: .failure(self.overflow))
                }
            }
        } onCancel: {
            self.withdraw(id, withdrawn)
        }
        return try result.get()
    }

    private func withdraw(_ id: UInt64, _ error: Failure?) {
        guard let error else { return }
        let waiting = self.state.withLock { state -> Waiting? in
            guard let index = state.queue.firstIndex(where: { $0.id == id }) else { return nil }
            return state.queue.remove(at: index)
        }
        waiting?.continuation.resume(returning: .failure(error))
    }

    private func run(_ first: [Waiting]) async {
        var batch = first
        while !batch.isEmpty {
            let replies = await self.perform(batch.map(\.request))
            for (index, waiting) in batch.enumerated() {
                waiting.continuation.resume(
                    returning: index < replies.count ? replies[index] : .failure(self.overflow))
            }
            batch = self.state.withLock { state in
                let batch = self.takeBatch(&state)
                if batch.isEmpty { state.inFlight -= 1 }
                return batch
            }
        }
    }

    private func takeBatch(_ state: inout State) -> [Waiting] {
        let batch = Array(state.queue.prefix(self.maximumBatch))
        state.queue.removeFirst(batch.count)
        return batch
    }
}
