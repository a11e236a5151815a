import Logging
import NIOCore
import NIOPosix
import Synchronization

/// Tells the observer of each refusal, and the log of one of each kind a second.
final class RefusalReporter: Sendable {
    private struct State {
        var allowance = LogAllowance<RPCRefusal>(capacity: RPCRefusal.allCases.count)
        var isWriting = false
    }

    private let observer: (any RPCObserver)?
    private let logger: Logger
    private let state = Mutex(State())

    init(observer: (any RPCObserver)?, logger: Logger) {
        self.observer = observer
        self.logger = logger
    }

    /// On event loops. The log may block, so that somebody else writes to it; a line that would have to wait for the one
    /// before is left out.
    func report(_ refusal: RPCRefusal, peer: String) {
        self.observer?.refused(refusal)
        let line = self.state.withLock { state in
            let line = state.allowance.admit(refusal, at: .now(), isBusy: state.isWriting)
            if line != nil { state.isWriting = true }
            return line
        }
        guard let line else { return }
        NIOThreadPool.singleton.submit { _ in
            self.logger.warning(
                refusal.scope == .delay ? "Held back a call" : "Refused a \(refusal.scope.rawValue)",
                metadata: [
                    "reason": "\(refusal.rawValue)", "peer": "\(peer)",
                    "unlogged_before": "\(line.leftOut + line.leftOutOfOthers)",
                ])
            self.state.withLock { $0.isWriting = false }
        }
    }
}
