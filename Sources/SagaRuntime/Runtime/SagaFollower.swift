/// Follows one saga from a cursor on: every event once, in order, without gap; ends after the event that makes the saga
/// terminal or parks it.
///
/// Subscribes to the feed first and reads the rows second, so that nothing falls between the two; on a jump in the
/// sequence it goes back to the rows.
public struct SagaFollower: AsyncSequence, Sendable {
    public typealias Element = [SagaEvent]

    /// To anybody else there is no such saga.
    let visibility: Visibility

    let id: SagaID
    let after: UInt32
    let feed: EventFeed
    let reader: SagaReader

    public func makeAsyncIterator() -> AsyncIterator {
        AsyncIterator(
            id: self.id, visibility: self.visibility, cursor: self.after, feed: self.feed, reader: self.reader)
    }

    public final class AsyncIterator: AsyncIteratorProtocol {
        private let id: SagaID
        private let visibility: Visibility
        private let feed: EventFeed
        private let reader: SagaReader
        private let mailbox: EventFeed.Mailbox
        private var cursor: UInt32
        private var mustRead = true
        private var isFirst = true
        private var isOver = false
        private var opened: [SagaEvent]?

        init(id: SagaID, visibility: Visibility, cursor: UInt32, feed: EventFeed, reader: SagaReader) {
            self.id = id
            self.visibility = visibility
            self.cursor = cursor
            self.feed = feed
            self.reader = reader
            self.mailbox = feed.subscribe(id)
        }

        deinit { self.feed.unsubscribe(self.id, self.mailbox) }

        /// Reads what is there already, so that an error comes before anything is promised to a watcher. Optional.
        ///
        /// - Throws: as `next()`.
        public func open() async throws {
            if self.mustRead { self.opened = try await self.read() }
        }

        /// The next events; `nil` once the saga is over.
        ///
        /// - Throws: `notFound`, `outOfRange` (first call only), `shuttingDown` when this process drains,
        ///   `databaseUnavailable`; `CancellationError`.
        public func next() async throws -> [SagaEvent]? {
            if let events = self.opened {
                self.opened = nil
                return events
            }
            while !self.isOver {
                if self.mustRead {
                    if let events = try await self.read() { return events }
                    continue
                }
                switch await self.mailbox.receive() {
                case .cancelled: throw CancellationError()
                case .draining: throw SagaRuntimeError.shuttingDown
                case .gap: self.mustRead = true
                case .events(let events):
                    let newer = events.drop { $0.sequence <= self.cursor }
                    guard let first = newer.first else { continue }
                    if first.sequence == self.cursor + 1 { return self.took(Array(newer)) }
                    self.mustRead = true
                }
            }
            return nil
        }

        private func read() async throws -> [SagaEvent]? {
            let history: SagaHistory?
            do {
                history = try await self.reader.history(self.id)
            } catch {
                // Watchers stay open while the database is away; only the first answer needs it now.
                guard !self.isFirst, case .databaseUnavailable = error else { throw error }
                try await self.reader.surroundings.sleep(for: .milliseconds(250))
                return nil
            }
            guard let history,
                self.visibility.includes(userID: history.snapshot.userID, tenantID: history.snapshot.tenantID)
            else { throw SagaRuntimeError.notFound }
            let newest = UInt32(history.events.count)
            if self.isFirst, self.cursor > newest { throw SagaRuntimeError.outOfRange(newest: newest) }
            self.isFirst = false
            self.mustRead = false
            let newer = history.events.dropFirst(Int(self.cursor))
            if newer.isEmpty {
                if !history.snapshot.status.isActive { self.isOver = true }
                return nil
            }
            return self.took(Array(newer))
        }

        private func took(_ events: [SagaEvent]) -> [SagaEvent] {
            if let last = events.last {
                self.cursor = last.sequence
                if !last.sagaStatus.isActive { self.isOver = true }
            }
            return events
        }
    }
}
