import Synchronization

/// Sagas whose rows are of a newer format than this program reads, and that it leaves to the instances that publish it.
final class LeftSagas: Sendable {
    /// One that was found so, as it is to be given back.
    struct Newcomer: Sendable {
        var id: SagaID
        /// As they were before this program looked at it.
        var adoptions: Int
        var isUnsent: Bool
    }

    private struct State {
        /// The format that each needs.
        var formats: [SagaID: Int] = [:]
        var newcomers: [Newcomer] = []
    }

    /// More are forgotten, and found again.
    private static let capacity = 10_000

    private let state = Mutex(State())

    var ids: Set<SagaID> { self.state.withLock { Set($0.formats.keys) } }

    func add(_ newcomer: Newcomer, format: Int) {
        self.state.withLock { state in
            if state.formats.count >= Self.capacity { state.formats.removeAll() }
            state.formats[newcomer.id] = format
            state.newcomers.append(newcomer)
        }
    }

    /// Those that are still to be given back.
    func takeNewcomers() -> [Newcomer] {
        self.state.withLock { state in
            defer { state.newcomers = [] }
            return state.newcomers
        }
    }

    func putBack(_ newcomers: [Newcomer]) { self.state.withLock { $0.newcomers += newcomers } }

    /// Those of formats that nobody publishes any more are looked at anew.
    func forget(unless isPublished: (Int) -> Bool) {
        self.state.withLock { state in state.formats = state.formats.filter { isPublished($0.value) } }
    }
}
