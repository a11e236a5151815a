import Logging
import NIOCore
import Synchronization

/// Tells the observer of each refusal, and the log of one a second: whoever is turned away a thousand times must not
/// fill a disk with it.
final class RefusalReporter: Sendable {
    private static let logInterval = TimeAmount.seconds(1)

    private struct State {
        var nextLog = NIODeadline.uptimeNanoseconds(0)
        var unlogged = 0
    }

    private let observer: (any RPCObserver)?
    private let logger: Logger
    private let state = Mutex(State())

    init(observer: (any RPCObserver)?, logger: Logger) {
        self.observer = observer
        self.logger = logger
    }

    func report(_ refusal: RPCRefusal, peer: String) {
        self.observer?.refused(refusal)
        let unlogged = self.state.withLock { state -> Int? in
            let now = NIODeadline.now()
            guard now >= state.nextLog else {
                state.unlogged += 1
                return nil
            }
            state.nextLog = now + Self.logInterval
            defer { state.unlogged = 0 }
            return state.unlogged
        }
        guard let unlogged else { return }
        self.logger.warning(
            "Refused a \(refusal.scope.rawValue)",
            metadata: ["reason": "\(refusal.rawValue)", "peer": "\(peer)", "unlogged_before": "\(unlogged)"])
    }
}
