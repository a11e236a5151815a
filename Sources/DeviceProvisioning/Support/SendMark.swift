import SagaRuntime
import Synchronization

/// Whether one request has left. Whoever gives up on it and the connection that would send it agree here, so that one
/// of them is first: what was given up unsent is never sent.
final class SendMark: Sendable {
    enum State: Sendable, Equatable {
        /// Nothing was sent.
        case held
        /// It is being written: from here on it may have arrived.
        case left
        /// Nothing was sent and nothing will be, for this reason.
        case refused(StepError)
    }

    private let state = Mutex<(state: State, isGivenUp: Bool)>((.held, false))
    private let authorize: @Sendable () throws(StepError) -> Void

    init(_ authorize: @escaping @Sendable () throws(StepError) -> Void) { self.authorize = authorize }

    /// The connection's question: may it be written now?
    func mayLeave() -> Bool {
        self.state.withLock { state in
            guard !state.isGivenUp, state.state == .held else { return false }
            do throws(StepError) {
                try self.authorize()
                state.state = .left
                return true
            } catch {
                state.state = .refused(error)
                return false
            }
        }
    }

    /// Nobody waits for it any more.
    func giveUp() -> State {
        self.state.withLock { state in
            state.isGivenUp = true
            return state.state
        }
    }
}
