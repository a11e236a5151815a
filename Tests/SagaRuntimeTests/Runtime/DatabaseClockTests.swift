@testable import SagaRuntime
import TestSupport
import Testing

@Suite struct DatabaseClockTests {
    private func sample(_ clock: DatabaseClock, _ time: Int64, sent: Int64, roundTrip: Int64) {
        clock.learn(
            Timestamp(milliseconds: time), sent: BootTime(nanoseconds: sent * 1_000_000),
            received: BootTime(nanoseconds: (sent + roundTrip) * 1_000_000))
    }

    /// What the clock's offset is, milliseconds.
    private func offset(_ clock: DatabaseClock) -> Int64 {
        let difference = clock.now().microseconds - BootTime.now.nanoseconds / 1000
        return (difference + 500) / 1000
    }

    @Test func quickestAnswerWins() {
        let clock = DatabaseClock()
        self.sample(clock, 1_000_100, sent: 0, roundTrip: 100)  // in the middle: 50
        #expect(abs(self.offset(clock) - 1_000_050) <= 1)
        self.sample(clock, 1_000_210, sent: 200, roundTrip: 2)
        #expect(abs(self.offset(clock) - 1_000_009) <= 1)
        self.sample(clock, 1_000_330, sent: 300, roundTrip: 80)
        #expect(abs(self.offset(clock) - 1_000_009) <= 1)
    }

    @Test func oldSampleGivesWay() {
        let clock = DatabaseClock()
        self.sample(clock, 1_000_000, sent: 0, roundTrip: 1)
        self.sample(clock, 1_061_000 + 20, sent: 61_000, roundTrip: 60)
        #expect(abs(self.offset(clock) - 999_990) <= 1)
    }

    @Test func stepOfTheDatabasesClockIsFollowedAtOnce() {
        let clock = DatabaseClock()
        self.sample(clock, 1_000_000, sent: 0, roundTrip: 1)
        self.sample(clock, 5_000_000, sent: 1000, roundTrip: 50)
        #expect(abs(self.offset(clock) - (5_000_000 - 1025)) <= 1)
    }

    @Test func followsTheDatabaseAndNotTheWallClock() async throws {
        let pool = PostgresPool(
            try await TestDatabase.make(migrations: SagaMigrations.all).configuration, size: 1, maximumWaiters: 1)
        let clock = DatabaseClock()
        #expect(clock.now() < Timestamp(milliseconds: 1000))
        try await clock.synchronise(with: pool)
        let query = SQLQuery(SQLStatement("now", "SELECT clock_timestamp()"))
        let before = clock.now()
        let now = try await pool.run(query).single().timestamp(0)
        #expect(before - .milliseconds(100) < now)
        #expect(now < clock.now() + .milliseconds(100))
    }
}

extension Timestamp {
    static func - (lhs: Timestamp, rhs: Duration) -> Timestamp { lhs + (.zero - rhs) }
}
