import Testing

@testable import DeviceProvisioning

@Suite struct SimulatedClockTests {
    private static let start = ContinuousClock.now

    @Test func runsOnFromItsReading() {
        var clock = SimulatedClock()
        #expect(clock.now(at: Self.start) == nil)
        clock.read(1_000_000, at: Self.start)
        #expect(clock.now(at: Self.start + .milliseconds(300)) == 1_300_000)
        #expect(clock.now(at: Self.start + .seconds(10)) == 11_000_000)
        #expect(clock.now(at: Self.start + .milliseconds(10_001)) == nil)
        clock.forget()
        #expect(clock.now(at: Self.start) == nil)
    }

    /// An answer that took longer, or came by another connection, says less than is known already.
    @Test func isNeverPutBackByAnAnswer() {
        var clock = SimulatedClock()
        clock.read(1_000_000, at: Self.start)
        clock.read(1_000_100, at: Self.start + .milliseconds(200))
        #expect(clock.now(at: Self.start + .milliseconds(200)) == 1_200_000)
        clock.read(5_000_000, at: Self.start + .milliseconds(300))
        #expect(clock.now(at: Self.start + .milliseconds(400)) == 5_100_000)
    }
}
