import Synchronization

/// Gathers requests that arrive together and performs them as one: natural batching, without a timer.
///
/// The first request starts at once; those that arrive while `maximumInFlight` batches run wait and make up the next one.
/// A request can't be cancelled: batches are short and bounded by the time limits of whatever performs them.
final class Batcher<Request: Sendable, Reply: Sendable, Failure: Error>: Sendable {
    /// One reply per request, in the same order.
    typealias Perform = @Sendable ([Request]) async -> [Result<Reply, Failure>]

    private struct Waiting: Sendable {
        var request: Request
        var continuation: CheckedContinuation<Result<Reply, Failure>, Never>
    }

    private enum Next {
        case wait, run([Waiting]), refuse
    }

    private struct State {
        var queue: [Waiting] = []
        var inFlight = 0
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

    func submit(_ request: Request) async throws(Failure) -> Reply {
        let result = await withCheckedContinuation { continuation in
            let next = self.state.withLock { state -> Next in
                guard state.queue.count < self.maximumQueued else { return .refuse }
                state.queue.append(Waiting(request: request, continuation: continuation))
                guard state.inFlight < self.maximumInFlight else { return .wait }
                state.inFlight += 1
                return .run(self.takeBatch(&state))
            }
            switch next {
            case .wait: break
            case .run(let batch): Task { await self.run(batch) }
            case .refuse: continuation.resume(returning: .failure(self.overflow))
            }
        }
        return try result.get()
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
