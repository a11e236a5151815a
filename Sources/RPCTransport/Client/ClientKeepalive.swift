import NIOCore

/// When a client asks whether its server is still there (gRFC A8). Pure: time comes in.
struct ClientKeepalive {
    enum Action: Equatable {
        case none
        case ping
        /// Nothing came for too long after a PING.
        case giveUp
    }

    let interval: Duration
    let timeout: Duration
    /// PINGs also while there are no calls, which many servers punish.
    let permitsWithoutCalls: Bool
    private var sentAt: NIODeadline?

    init(interval: Duration, timeout: Duration, permitsWithoutCalls: Bool) {
        self.interval = interval
        self.timeout = timeout
        self.permitsWithoutCalls = permitsWithoutCalls
    }

    /// - Returns: what to do, and when to ask again.
    mutating func check(now: NIODeadline, lastRead: NIODeadline, hasCalls: Bool) -> (Action, next: NIODeadline) {
        if let sentAt = self.sentAt {
            let end = sentAt + TimeAmount(self.timeout)
            if lastRead > sentAt {
                self.sentAt = nil
            } else if now >= end {
                return (.giveUp, .distantFuture)
            } else {
                return (.none, end)
            }
        }
        let due = lastRead + TimeAmount(self.interval)
        guard now >= due else { return (.none, due) }
        guard hasCalls || self.permitsWithoutCalls else { return (.none, now + TimeAmount(self.interval)) }
        self.sentAt = now
        return (.ping, now + TimeAmount(self.timeout))
    }
}
