import Testing

@testable import DeviceProvisioning

@Suite struct OccasionallyTests {
    @Test func letsOneThroughAndCountsTheOthers() {
        var occasionally = Occasionally(every: .seconds(60))
        let start = ContinuousClock.now
        #expect(occasionally.occurred(now: start) == 1)
        #expect(occasionally.occurred(now: start + .seconds(1)) == nil)
        #expect(occasionally.occurred(now: start + .seconds(59)) == nil)
        #expect(occasionally.occurred(now: start + .seconds(60)) == 3)
        #expect(occasionally.occurred(now: start + .seconds(61)) == nil)
        #expect(occasionally.occurred(now: start + .seconds(500)) == 2)
    }
}
