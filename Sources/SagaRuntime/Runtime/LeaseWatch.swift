/// What an observer has seen of others' leases, on its own monotonic clock.
///
/// The living write another `lease_until` with every renewal, whatever the database's clock says. One that has stayed the
/// same for a lease's length belongs to an instance that has not trusted itself for a while: that length began for it with
/// its last renewal, before anybody could see it.
struct LeaseWatch: Sendable {
    private struct Observation: Sendable {
        var leaseUntil: Timestamp
        /// When this value was first seen.
        var since: BootTime
    }

    let leaseDuration: Duration
    private var observations: [Int64: Observation] = [:]

    init(leaseDuration: Duration) { self.leaseDuration = leaseDuration }

    /// Takes in what the leases of all others are now; those that are not among them are forgotten.
    ///
    /// - Parameter since: what was seen before doesn't count.
    mutating func observe(_ leases: [Int64: Timestamp], since: BootTime?, at now: BootTime) {
        var observations: [Int64: Observation] = [:]
        for (instance, leaseUntil) in leases {
            var observation = Observation(leaseUntil: leaseUntil, since: now)
            if let old = self.observations[instance], old.leaseUntil == leaseUntil {
                observation.since = max(old.since, since ?? old.since)
            }
            observations[instance] = observation
        }
        self.observations = observations
    }

    /// Whether its lease has been unchanged for as long as a lease lasts.
    func isOver(_ instance: Int64, at now: BootTime) -> Bool { self.unchanged(instance, now) >= self.leaseDuration }

    func isHalfOver(_ instance: Int64, at now: BootTime) -> Bool {
        self.unchanged(instance, now) >= self.leaseDuration / 2
    }

    private func unchanged(_ instance: Int64, _ now: BootTime) -> Duration {
        self.observations[instance].map { now - $0.since } ?? .zero
    }
}
