@testable import SagaRuntime
import Testing

@Suite struct LeaseWatchTests {
    private let start = BootTime(nanoseconds: 1_000_000_000_000)
    private let lease = Timestamp(microseconds: 42)

    private func at(_ seconds: Int) -> BootTime { self.start + .seconds(seconds) }

    @Test func aLeaseIsOverOnceItWasUnchangedForItsLength() {
        var watch = LeaseWatch(leaseDuration: .seconds(6))
        #expect(!watch.isOver(1, at: self.at(100)))
        for second in 0..<6 {
            watch.observe([1: self.lease], since: nil, at: self.at(second))
            #expect(!watch.isOver(1, at: self.at(second)))
            #expect(watch.isHalfOver(1, at: self.at(second)) == (second >= 3))
        }
        watch.observe([1: self.lease], since: nil, at: self.at(6))
        #expect(watch.isOver(1, at: self.at(6)))
    }

    /// The clock that wrote it may go anywhere.
    @Test func everyOtherValueIsASignOfLife() {
        var watch = LeaseWatch(leaseDuration: .seconds(6))
        for (second, microseconds) in [(0, 42), (5, -3_600_000_000), (10, 7_200_000_000), (15, 43)] {
            watch.observe([1: Timestamp(microseconds: Int64(microseconds))], since: nil, at: self.at(second))
            #expect(!watch.isOver(1, at: self.at(second)))
        }
        #expect(watch.isOver(1, at: self.at(21)))
    }

    @Test func whatWasSeenBeforeAGapDoesNotCount() {
        var watch = LeaseWatch(leaseDuration: .seconds(6))
        watch.observe([1: self.lease], since: nil, at: self.at(0))
        watch.observe([1: self.lease], since: self.at(9), at: self.at(10))
        #expect(!watch.isOver(1, at: self.at(14)))
        #expect(watch.isOver(1, at: self.at(15)))
    }

    @Test func whoIsGoneIsForgotten() {
        var watch = LeaseWatch(leaseDuration: .seconds(6))
        watch.observe([1: self.lease, 2: self.lease], since: nil, at: self.at(0))
        watch.observe([2: self.lease], since: nil, at: self.at(5))
        watch.observe([1: self.lease, 2: self.lease], since: nil, at: self.at(10))
        #expect(!watch.isOver(1, at: self.at(10)))
        #expect(watch.isOver(2, at: self.at(10)))
    }
}
