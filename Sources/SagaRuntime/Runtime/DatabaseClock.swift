import Synchronization

/// The database's clock, as this process tracks it: CLOCK_BOOTTIME plus an offset learned from the database.
///
/// The process's wall clock is never asked: it may be an hour off, or jump.
final class DatabaseClock: Sendable {
    private struct Offset {
        /// Database time minus boot time, microseconds.
        var microseconds: Int64
        /// Of the round trip that it was learned from: half of it bounds the error.
        var roundTrip: Duration
        var learned: BootTime
    }

    private let offset = Mutex<Offset?>(nil)
    private let stepped = Atomic<Bool>(false)
    /// The database's clock has stepped by more than a second, and nobody has been told.
    var hasStepped: Bool { self.stepped.load(ordering: .relaxed) }
    func stepIsKnown() { self.stepped.store(false, ordering: .relaxed) }
    /// Whose boot time it is.
    let surroundings: Surroundings

    init(_ surroundings: Surroundings = .real) { self.surroundings = surroundings }

    /// A sample older than this gives way to a newer one with a longer round trip.
    private static let maximumAge: Duration = .seconds(60)

    /// The instant by the database's clock; before the first sample, the epoch.
    func now() -> Timestamp { self.moment().time }

    /// The same, with this process' own uptime.
    func moment() -> Moment {
        let uptime = self.surroundings.now
        let boot = uptime.nanoseconds / 1000
        let time = Timestamp(microseconds: boot &+ (self.offset.withLock { $0?.microseconds } ?? -boot))
        let isMutant = Mutant.intervalsFollowTheDatabase.isActive
        return Moment(time: time, uptime: isMutant ? BootTime(nanoseconds: time.microseconds * 1000) : uptime)
    }

    /// Takes in a sample: the database said `time` between `sent` and `received`.
    func learn(_ time: Timestamp, sent: BootTime, received: BootTime) {
        let roundTrip = received - sent
        let middle = (sent.nanoseconds + (received.nanoseconds - sent.nanoseconds) / 2) / 1000
        let sample = Offset(microseconds: time.microseconds &- middle, roundTrip: roundTrip, learned: received)
        self.offset.withLock { offset in
            if let old = offset, old.roundTrip < roundTrip, received - old.learned < Self.maximumAge {
                // A worse sample still tells of a step of the database's clock.
                let slack = old.roundTrip.wholeMicroseconds + roundTrip.wholeMicroseconds
                if abs(old.microseconds &- sample.microseconds) <= slack { return }
            }
            if let old = offset {
                let slack = max(old.roundTrip.wholeMicroseconds + roundTrip.wholeMicroseconds, 1_000_000)
                if abs(old.microseconds &- sample.microseconds) > slack { self.stepped.store(true, ordering: .relaxed) }
            }
            offset = sample
        }
    }

    private static let clock = SQLStatement("saga_clock", "SELECT saga_now()")

    /// Asks a few times and keeps the quickest answer.
    func synchronise(with pool: PostgresPool) async throws(PostgresError) {
        for _ in 0..<5 {
            let sent = self.surroundings.now
            let rows = try await pool.run([SQLQuery(Self.clock, SQLParameters())])
            self.learn(try rows[0].single().timestamp(0), sent: sent, received: self.surroundings.now)
        }
    }
}
