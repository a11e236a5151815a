import DeviceRPC
import RPCTransport
import SagaRuntime

/// One WatchSagas stream over a batch that is made meanwhile, and how long its events take to get there.
struct BatchWatchLoad {
    let batchID: String
    /// Sagas of the batch.
    let count: Int

    /// Follows all of them to their ends: from each event's own time (the database's clock, which has to be this machine's) to its
    /// arrival.
    ///
    /// - Parameter create: makes the batch, once the stream is open. Its errors are counted, its times are not.
    func run(
        _ client: DeviceClient, create: @escaping @Sendable () async throws -> LoadResult
    ) async throws -> LoadResult {
        let started = ContinuousClock.now
        let (isOpen, open) = AsyncStream<Void>.makeStream()
        async let watched = self.follow(client) { open.finish() }
        for await _ in isOpen {}
        let made = try await create()
        var result = try await watched
        for (error, count) in made.errors { result.record(error, count: count) }
        result.elapsed = .now - started
        return result
    }

    private func follow(_ client: DeviceClient, onOpen: () -> Void) async throws -> LoadResult {
        var result = LoadResult()
        var sequences: [String: UInt32] = [:]
        var ended = 0
        func take(_ status: V1.SagaStatus) throws {
            if [.completed, .compensated, .parked].contains(status) { ended += 1 }
            if ended == self.count { throw CancellationError() }
        }
        defer { onOpen() }
        do {
            try await client.watchSagas(.with { $0.batchID = self.batchID }) { update in
                if update.synced != nil { onOpen() }
                if let saga = update.saga {
                    sequences[saga.sagaID] = saga.lastSequence
                    try take(saga.status)
                }
                guard let event = update.event else { return }
                guard let last = sequences.updateValue(event.sequence, forKey: event.sagaID), event.sequence == last + 1
                else { throw CallFailure(RPCError(.dataLoss, "an event was missed or came twice")) }
                if let time = event.time?.microseconds {
                    result.record(latency: .microseconds(WallClock.now() - time))
                }
                try take(event.sagaStatus)
            }
        } catch is CancellationError {
            // All of them have ended.
        } catch {
            result.record(error: error)
        }
        return result
    }
}
