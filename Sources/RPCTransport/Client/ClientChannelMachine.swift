import NIOCore

/// Whether a client has a connection, makes one, or waits to make one (grpc/doc/connectivity-semantics-and-api.md).
/// Pure: time and randomness come in.
struct ClientChannelMachine {
    private enum State {
        /// No connection, and none asked for. Can transition to: connecting, closed.
        case idle
        /// Can transition to: ready, backingOff, closed.
        case connecting
        /// Can transition to: idle, connecting, backingOff (GOAWAY, lost), closed.
        case ready
        /// The last attempt failed: calls that don't want to wait fail with this. Can transition to: connecting, closed.
        case backingOff(RPCError, until: NIODeadline)
        /// The client was closed.
        case closed
    }

    private var state = State.idle
    private let backoff: ExponentialBackoff
    /// Attempts that failed since a connection was of use.
    private var failures = 0
    /// The last connection was of no use.
    private var wasHungUpOn = false

    init(backoff: ExponentialBackoff) { self.backoff = backoff }

    var isConnecting: Bool { if case .connecting = self.state { true } else { false } }

    static var closedError: RPCError { RPCError(.unavailable, "the client was closed") }

    enum OnCall {
        /// There is a connection.
        case send
        /// The call has to wait for one that is being made.
        case wait
        /// The call has to wait, and this is to be made.
        case connect
        /// The call has to wait until a connection may be made again.
        case waitUntil(NIODeadline)
        case fail(RPCError)
    }

    mutating func callArrived(waitsForReady: Bool, now: NIODeadline) -> OnCall {
        switch self.state {
        case .ready: return .send
        case .connecting: return .wait
        case .idle:
            self.state = .connecting
            return .connect
        case .backingOff(let error, let until):
            if until <= now {
                self.state = .connecting
                return .connect
            }
            return waitsForReady ? .waitUntil(until) : .fail(error)
        case .closed: return .fail(Self.closedError)
        }
    }

    /// An attempt is through. False if nobody wants it any more.
    mutating func connected() -> Bool {
        switch self.state {
        case .connecting:
            self.state = .ready
            return true
        case .idle, .ready, .backingOff, .closed: return false
        }
    }

    /// All addresses failed. Nil if nobody wants to know any more.
    ///
    /// - Returns: until when no other attempt is made.
    mutating func connectFailed(_ error: RPCError, now: NIODeadline, random: Double) -> NIODeadline? {
        switch self.state {
        case .connecting: return self.backOff(error, now, random)
        case .idle, .ready, .backingOff, .closed: return nil
        }
    }

    /// The time until which no attempt was to be made is over, and calls wait. True: to be made now.
    mutating func backoffEnded(now: NIODeadline) -> Bool {
        guard case .backingOff(_, let until) = self.state, until <= now else { return false }
        self.state = .connecting
        return true
    }

    enum OnRetired {
        case none
        /// Calls wait: a new connection is to be made.
        case connect
        /// The second connection in a row that the server hung up on before it was of any use: it counts as a failed
        /// attempt, since calls would have connections made as fast as the network allows.
        case backOff(until: NIODeadline)
    }

    /// The connection takes no more calls: GOAWAY, or it is gone.
    ///
    /// - Parameter wasUseful: the server answered a call on it, or it lasted.
    mutating func retired(
        _ error: RPCError, wasUseful: Bool, callsWait: Bool, now: NIODeadline, random: Double
    ) -> OnRetired {
        guard case .ready = self.state else { return .none }
        if !wasUseful, self.wasHungUpOn { return .backOff(until: self.backOff(error, now, random)) }
        self.wasHungUpOn = !wasUseful
        if wasUseful { self.failures = 0 }
        self.state = callsWait ? .connecting : .idle
        return callsWait ? .connect : .none
    }

    mutating func close() { self.state = .closed }

    private mutating func backOff(_ error: RPCError, _ now: NIODeadline, _ random: Double) -> NIODeadline {
        let until = now + TimeAmount(self.backoff.delay(step: self.failures, random: random))
        self.failures += 1
        self.state = .backingOff(error, until: until)
        return until
    }
}
