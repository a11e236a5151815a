import NIOCore
import RPCTransport
import SagaRuntime
import Synchronization

// WatchSagas: many sagas on one stream.

extension DeviceService {
    /// Sagas that one stream follows at a time.
    private static let maximumFollowed = 16_384
    private static let sagasOfPage = 500

    func watchSagas(
        _ request: V1.WatchSagasRequest, _ caller: Caller, _ context: RPCContext, _ writer: RPCWriter
    ) async throws {
        let query = try WatchSagasQuery(validating: request, mayWatchAll: caller.permissions.contains(.sagaAdmin))
        var selection = SagaSelection(query, caller.visibleSagas, now: self.runtime.now)
        let followed = FollowedSagas()
        var found = try await self.sagas(of: &selection, before: nil, context)
        // Only now: an error before is a status of its own.
        try writer.sendHeaders()
        try await withThrowingDiscardingTaskGroup { group in
            /// Sends sagas as they are, and follows those that move.
            func takeUp(_ snapshots: [SagaSnapshot]) async throws {
                for snapshot in snapshots {
                    let message = V1.WatchSagasResponse.with { $0.saga = V1.Saga(snapshot, in: self.runtime) }
                    try await writer.write(message.encoded())
                    if snapshot.isOutline { continue }
                    let last = UInt32(clamping: snapshot.lastSequence)
                    if snapshot.status.isActive {
                        try follow(snapshot.id, after: last)
                    } else if snapshot.status == .parked {
                        followed.parked(snapshot.id, at: last)
                    }
                }
            }
            func follow(_ id: SagaID, after sequence: UInt32) throws {
                guard followed.begin(atMost: Self.maximumFollowed) else {
                    throw RPCError(
                        .overloaded, "more than \(Self.maximumFollowed) of these sagas move: ask for fewer",
                        retry: .never)
                }
                group.addTask { try await self.send(id, after: sequence, followed, writer) }
            }

            while true {
                try await takeUp(found.sagas)
                guard let next = found.next else { break }
                found = try await self.sagas(of: &selection, before: next, context)
            }
            try await writer.write(V1.WatchSagasResponse.with { $0.synced = V1.Synced() }.encoded())

            while !group.isCancelled {
                try await Task.sleep(for: .milliseconds(500))
                guard selection.isInTime(self.runtime.now) else {
                    throw RPCError(
                        .databaseUnavailable,
                        "the database's clock was set: watch again, what begins may be missed here")
                }
                do {
                    try await takeUp(try await self.newSagas(of: &selection, context))
                    // What an operator has taken up again goes on where it stopped.
                    for (id, sequence) in try await self.resumed(followed) { try follow(id, after: sequence) }
                } catch SagaRuntimeError.databaseUnavailable {
                    // Those who watch stay while the database is away.
                    continue
                }
                if query.endsWhenDone, selection.hasMatched, followed.count == 0 { return }
            }
        }
    }

    /// Sends a saga's events until it is over or parked.
    private func send(
        _ id: SagaID, after sequence: UInt32, _ followed: FollowedSagas, _ writer: RPCWriter
    ) async throws {
        var last: SagaEvent?
        do {
            for try await events in self.runtime.follow(id, after: sequence) {
                for event in events {
                    let message = V1.WatchSagasResponse.with { $0.event = V1.SagaEvent(event, of: id) }
                    try await writer.write(message.encoded())
                    last = event
                }
            }
        } catch SagaRuntimeError.notFound {
            // Its day is gone.
        } catch SagaRuntimeError.unreadable {
            // It spoils no other; GetSaga says so of it.
        } catch let error as SagaRuntimeError {
            throw RPCError(error, of: id.rawValue)
        }
        if let last, last.sagaStatus == .parked { followed.parked(id, at: last.sequence) }
        followed.end()
    }

    /// A page of the sagas that match, newest first.
    private func sagas(
        of selection: inout SagaSelection, before place: SagaID?, _ context: RPCContext
    ) async throws -> SagaPage {
        let (filter, named) = (selection.filter, selection.named)
        let page = try await self.longReads.sagas.pass(Client(context)) {
            guard named.isEmpty else {
                return SagaPage(sagas: Array(try await self.runtime.snapshots(named).values), next: nil)
            }
            return try await self.runtime.list(filter, before: place, limit: Self.sagasOfPage)
        }
        return SagaPage(sagas: selection.take(page.sagas), next: page.next)
    }

    /// Those that have begun since.
    private func newSagas(of selection: inout SagaSelection, _ context: RPCContext) async throws -> [SagaSnapshot] {
        let now = self.runtime.now
        let since = selection.horizon(at: now)
        let (filter, named) = (selection.filter, selection.named)
        let ids = try await self.longReads.sagas.pass(Client(context)) {
            guard named.isEmpty else { return named.filter { $0.milliseconds >= since } }
            var ids: [SagaID] = []
            var place: SagaID?
            repeat {
                let page = try await self.runtime.ids(filter, before: place, limit: Self.sagasOfPage)
                ids += page.ids.filter { $0.milliseconds >= since }
                place = page.next.flatMap { $0.milliseconds >= since ? $0 : nil }
            } while place != nil
            return ids
        }
        var found: [SagaSnapshot] = []
        var unknown = ids.filter { !selection.hasTaken($0) }[...]
        while !unknown.isEmpty {
            let some = Array(unknown.prefix(Self.sagasOfPage))
            let snapshots = try await self.runtime.snapshots(some)
            found += some.compactMap { snapshots[$0] }
            unknown = unknown.dropFirst(some.count)
        }
        // Only now: what a failed look has taken would never be sent.
        let new = selection.take(found)
        selection.hasLooked(since: since, at: now)
        return new
    }

    /// Sagas that were parked when they were last seen, and have moved since; with the sequences at which that was.
    private func resumed(_ followed: FollowedSagas) async throws -> [(id: SagaID, after: UInt32)] {
        let parked = followed.takeParked(atMost: Self.sagasOfPage)
        if parked.isEmpty { return [] }
        let snapshots: [SagaID: SagaSnapshot]
        do {
            snapshots = try await self.runtime.snapshots(Array(parked.keys))
        } catch {
            for (id, sequence) in parked { followed.parked(id, at: sequence) }
            throw error
        }
        var moved: [(id: SagaID, after: UInt32)] = []
        for (id, sequence) in parked {
            guard let snapshot = snapshots[id] else { continue }
            if snapshot.lastSequence > Int(sequence) {
                moved.append((id, sequence))
            } else {
                followed.parked(id, at: sequence)
            }
        }
        return moved
    }
}

/// Which sagas a WatchSagas stream is about, and which of them it has taken up.
private struct SagaSelection {
    /// A saga's row is there within so many milliseconds of its id's time, or it never is.
    private static let longestBirth: Int64 = 90_000
    /// Nearly all are there within so many.
    private static let usualBirth: Int64 = 5_000
    /// By how much the clock may be set while sagas are still found by their ids: less than `longestBirth` goes beyond any birth.
    private static let clockSlack: Duration = .seconds(20)
    /// Looks at the newest few, for each that goes back further.
    private static let shortLooks = 10

    let filter: SagaFilter
    /// Empty: the filter says it all.
    let named: [SagaID]
    private(set) var hasMatched = false
    /// Of the sagas that a look may find again.
    private var taken: Set<SagaID> = []
    /// Milliseconds since 1970: all sagas with older ids have been found.
    private var complete: Int64
    private var looks = 0
    private let began: (time: Timestamp, instant: ContinuousClock.Instant)

    init(_ query: WatchSagasQuery, _ visibility: Visibility, now: Timestamp) {
        self.filter = SagaFilter(
            statuses: query.statuses.compactMap { SagaStatus(rawValue: Int($0.rawValue)) }, userID: query.userID,
            resourceID: query.deviceID, batchID: query.batchID, visibility: visibility)
        self.named = query.sagaIDs
        self.complete = now.microseconds / 1000 - Self.longestBirth
        self.began = (now, .now)
    }

    /// Whether ids are still minted by the clock that they were minted by when this began.
    func isInTime(_ now: Timestamp) -> Bool {
        let drift = (now - self.began.time) - (ContinuousClock.now - self.began.instant)
        return max(drift, .zero - drift) <= Self.clockSlack
    }

    func hasTaken(_ id: SagaID) -> Bool { self.taken.contains(id) }

    /// Those of `snapshots` that match and have not been taken yet.
    mutating func take(_ snapshots: [SagaSnapshot]) -> [SagaSnapshot] {
        let new = snapshots.filter { self.matches($0) && !self.taken.contains($0.id) }
        for snapshot in new where snapshot.id.milliseconds >= self.complete { self.taken.insert(snapshot.id) }
        if !new.isEmpty { self.hasMatched = true }
        return new
    }

    private func matches(_ saga: SagaSnapshot) -> Bool {
        (self.filter.statuses.isEmpty || self.filter.statuses.contains(saga.status))
            && (self.filter.userID.isEmpty || Visibility.isSame(saga.userID, self.filter.userID))
            && (self.filter.resourceID.isEmpty || saga.resourceID == self.filter.resourceID)
            && (self.filter.batchID.isEmpty || Visibility.isSame(saga.batchID, self.filter.batchID))
            && self.filter.visibility.includes(userID: saga.userID, tenantID: saga.tenantID)
    }

    /// How far back the next look goes: milliseconds since 1970.
    func horizon(at now: Timestamp) -> Int64 {
        guard self.looks > 0, self.named.isEmpty else { return self.complete }
        return max(self.complete, now.microseconds / 1000 - Self.usualBirth)
    }

    mutating func hasLooked(since horizon: Int64, at now: Timestamp) {
        self.looks = (self.looks + 1) % Self.shortLooks
        guard horizon == self.complete else { return }
        self.complete = max(self.complete, now.microseconds / 1000 - Self.longestBirth)
        self.taken = self.taken.filter { $0.milliseconds >= self.complete }
    }
}

/// The sagas that a WatchSagas stream has taken up and that may still move.
private final class FollowedSagas: Sendable {
    private struct State {
        var moving = 0
        /// With the sequence that was sent last.
        var parked: [SagaID: UInt32] = [:]
    }

    private let state = Mutex(State())

    /// Those that move.
    var count: Int { self.state.withLock { $0.moving } }

    /// - Returns: false: there are too many already.
    func begin(atMost limit: Int) -> Bool {
        self.state.withLock { state in
            guard state.moving < limit else { return false }
            state.moving += 1
            return true
        }
    }

    func end() { self.state.withLock { $0.moving -= 1 } }

    func parked(_ id: SagaID, at sequence: UInt32) { self.state.withLock { $0.parked[id] = sequence } }

    /// Some of those that are parked, to be looked at.
    func takeParked(atMost limit: Int) -> [SagaID: UInt32] {
        self.state.withLock { state in
            let some = Dictionary(uniqueKeysWithValues: state.parked.prefix(limit).map { ($0.key, $0.value) })
            for id in some.keys { state.parked[id] = nil }
            return some
        }
    }
}
