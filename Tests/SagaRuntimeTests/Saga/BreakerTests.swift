import Testing

@testable import SagaRuntime

@Suite struct BreakerTests {
    private let start = BootTime(nanoseconds: 1_730_188_800_000_000_000)
    private static let limit = Duration.seconds(10)

    /// Failed so often that it opened at `start`.
    private func opened() -> Breaker {
        var breaker = Breaker()
        for _ in 0..<4 { #expect(breaker.failed(now: self.start) == nil) }
        #expect(breaker.failed(now: self.start) == .opened)
        return breaker
    }

    @Test func closedLetsEverybodyThrough() {
        var breaker = Breaker()
        for _ in 0..<100 { #expect(breaker.admit(now: self.start, limit: Self.limit) == .go) }
        #expect(!breaker.isOpen)
    }

    @Test func onlyFailuresInARowOpenIt() {
        var breaker = Breaker()
        for _ in 0..<10 {
            for _ in 0..<4 { #expect(breaker.failed(now: self.start) == nil) }
            #expect(breaker.answered() == nil)
        }
        #expect(!breaker.isOpen)
    }

    @Test func openHoldsBackUntilItsPauseIsOver() {
        var breaker = self.opened()
        let over = self.start + .seconds(1)
        #expect(breaker.admit(now: self.start, limit: Self.limit) == .wait(until: over, isLong: false))
        // What was under way when it opened tells nothing new.
        #expect(breaker.failed(now: self.start + .milliseconds(500)) == nil)
        #expect(
            breaker.admit(now: self.start + .milliseconds(999), limit: Self.limit) == .wait(until: over, isLong: false))
        #expect(breaker.admit(now: over, limit: Self.limit) == .probe)
    }

    @Test func oneProbeAtATime() {
        var breaker = self.opened()
        let now = self.start + .seconds(1)
        #expect(breaker.admit(now: now, limit: Self.limit) == .probe)
        #expect(breaker.admit(now: now, limit: Self.limit) == .wait(until: now + Breaker.glance, isLong: false))
        #expect(breaker.answered() == .closed)
        #expect(breaker.admit(now: now, limit: Self.limit) == .go)
        #expect(breaker.admit(now: now, limit: Self.limit) == .go)
    }

    @Test func aFailedProbeDoublesThePauseUpToACap() {
        var breaker = self.opened()
        var now = self.start + .seconds(1)
        for pause in [2, 4, 8, 16, 30, 30] {
            #expect(breaker.admit(now: now, limit: Self.limit) == .probe)
            #expect(breaker.failed(now: now) == nil)
            #expect(
                breaker.admit(now: now, limit: Self.limit) == .wait(until: now + .seconds(pause), isLong: pause >= 2))
            now = now + .seconds(pause)
        }
        #expect(breaker.isOpen)
    }

    @Test func aProbeThatSaysNothingMakesRoomForTheNext() {
        var breaker = self.opened()
        let now = self.start + .seconds(1)
        #expect(breaker.admit(now: now, limit: Self.limit) == .probe)
        #expect(breaker.passed(now: now) == nil)
        #expect(breaker.admit(now: now, limit: Self.limit) == .probe)
    }

    @Test func aProbeThatIsNeverHeardOfAgainIsOverInTheEnd() {
        var breaker = self.opened()
        let now = self.start + .seconds(1)
        #expect(breaker.admit(now: now, limit: Self.limit) == .probe)
        #expect(breaker.admit(now: now + Self.limit, limit: Self.limit) == .probe)
    }

    /// New work goes elsewhere, also while somebody looks; but where nobody does, it is what finds the dependency back.
    @Test func newWorkGoesElsewhereUntilSomebodyHasHadTimeToLook() {
        var breaker = self.opened()
        #expect(!Breaker().isDown(now: self.start))
        let over = self.start + .seconds(1)
        #expect(breaker.isDown(now: over) && breaker.isDown(now: over + (Breaker.patience - .milliseconds(1))))
        #expect(!breaker.isDown(now: over + Breaker.patience))
        #expect(breaker.admit(now: over, limit: Self.limit) == .probe)
        #expect(breaker.isDown(now: over + (Self.limit - .milliseconds(1))))
        #expect(breaker.answered() == .closed)
        #expect(!breaker.isDown(now: over))
    }

    /// An attempt of a forward step, which asks nobody, finds the dependency back.
    @Test func anyAnswerCloses() {
        var breaker = self.opened()
        #expect(breaker.answered() == .closed)
        #expect(breaker.admit(now: self.start, limit: Self.limit) == .go)
    }
}
