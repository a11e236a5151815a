import DeviceRPC
import RPCTransport
import SagaRuntime

/// Many WatchSaga streams of one saga, and how long its events take to reach each of them.
struct WatchLoad {
    let sagaID: String
    let streams: Int

    /// Follows the saga to its end. Only events that come once all streams are open are measured: from the event's own
    /// time (the database's clock, which has to be this machine's) to its arrival.
    ///
    /// - Parameters:
    ///   - client: whose connection a stream uses, by the stream's number.
    ///   - onOpen: called once every stream has had its first event.
    func run(
        client: (_ stream: Int) -> DeviceClient, onOpen: @escaping @Sendable () -> Void
    ) async -> LoadResult {
        let started = ContinuousClock.now
        let opened = Ticket()
        let openedAt = Shared<Int64?>(nil)
        let (sagaID, streams) = (self.sagaID, self.streams)
        return await withTaskGroup(of: LoadResult.self) { group in
            for stream in 0..<streams {
                let client = client(stream)
                group.addTask {
                    await Self.follow(sagaID, client, openedAt: openedAt) {
                        guard opened.next() == streams - 1 else { return }
                        openedAt.withLock { $0 = WallClock.now() }
                        onOpen()
                    }
                }
            }
            var total = LoadResult()
            for await result in group { total.merge(result) }
            total.elapsed = .now - started
            return total
        }
    }

    private static func follow(
        _ sagaID: String, _ client: DeviceClient, openedAt: Shared<Int64?>, onFirst: @Sendable () -> Void
    ) async -> LoadResult {
        var result = LoadResult()
        var last: UInt32 = 0
        do {
            try await client.watchSaga(.with { $0.sagaID = sagaID }) { event in
                if last == 0 { onFirst() }
                if event.sequence != last + 1 { throw UsageError("an event was missed or came twice") }
                last = event.sequence
                guard let time = event.time?.microseconds, let opened = openedAt.current, time >= opened else { return }
                result.record(latency: .microseconds(WallClock.now() - time))
            }
        } catch let error as UsageError {
            result.record(error: CallFailure(RPCError(.dataLoss, error.message)))
        } catch {
            result.record(error: error)
        }
        return result
    }
}
