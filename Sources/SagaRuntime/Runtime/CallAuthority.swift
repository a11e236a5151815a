import Synchronization

/// Says yes or no to each request of one call, and knows whether it ever said yes.
///
/// Where it has not, nothing was sent, whatever the call came to; and once the call is over it says no, so that what was given
/// up in a queue never leaves. Nor does what waited there for so long that its answer would hardly come in time.
final class CallAuthority: Sendable {
    private enum State: UInt8, AtomicRepresentable { case unsent, sent, over }

    private let lease: InstanceLease
    private let surroundings: Surroundings
    private let latest: BootTime
    private let state = Atomic<State>(.unsent)

    /// - Parameter limit: how long the call may take from now on; its first request leaves in the first half of it.
    init(lease: InstanceLease, limit: Duration, surroundings: Surroundings) {
        self.lease = lease
        self.surroundings = surroundings
        self.latest = surroundings.now + (Mutant.lateCallsAreSent.isActive ? limit : limit / 2)
    }

    /// To be asked right before every request.
    ///
    /// - Throws: `leaseLost` if it must not leave: the lease is not certain any more, the call was given up, or it is the
    ///   first one and too late.
    func authorize() throws(StepError) {
        guard self.lease.isTrusted else {
            throw StepError(.leaseLost, reason: "LEASE_LOST", message: "the lease is not certain any more")
        }
        guard self.state.load(ordering: .acquiring) == .sent || self.surroundings.now <= self.latest else {
            throw StepError(
                .leaseLost, reason: "GIVEN_UP", message: "more than half of the call's time went by before it was sent")
        }
        let (exchanged, found) = self.state.compareExchange(
            expected: .unsent, desired: .sent, ordering: .acquiringAndReleasing)
        guard exchanged || found == .sent else {
            throw StepError(
                .leaseLost, reason: "GIVEN_UP", message: "the call was given up before this request was sent")
        }
    }

    /// The call is over, or given up.
    ///
    /// - Returns: whether any request may have left.
    func end() -> Bool { self.state.exchange(.over, ordering: .acquiringAndReleasing) == .sent }
}

extension SagaMachine.CallOutcome {
    /// What a call's end means, given whether any of its requests may have left.
    func knowing(wasSent: Bool) -> SagaMachine.CallOutcome {
        switch self {
        case .succeeded, .pending, .resolved, .undone, .notSent:
            return self
        case .abandoned:
            return wasSent ? self : .notSent
        case .failed(let error):
            switch error.errorClass {
            case .leaseLost:
                // An earlier request of the same call may have done its part.
                guard wasSent else { return .notSent }
                return .failed(StepError(.unknownOutcome, reason: error.reason, message: error.message))
            case .unknownOutcome:
                guard !wasSent else { return self }
                return .failed(StepError(.unavailable, reason: error.reason, message: error.message))
            case .invalid, .refused, .conflict, .notFound, .throttled, .unavailable, .undecidable:
                return self
            }
        }
    }
}
