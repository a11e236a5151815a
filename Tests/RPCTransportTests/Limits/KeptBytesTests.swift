@testable import RPCTransport
import Testing

@Suite struct KeptBytesTests {
    private static let step = KeptBytes.step

    @Test func nobodyIsTurnedAwayWithinTheBound() {
        let kept = KeptBytes(limit: 100 * Self.step)
        kept.change(from: 0, to: 100 * Self.step)
        #expect(!kept.isTooMuch(100 * Self.step))
    }

    /// Past the bound it is those with more than an equal part, until it holds again.
    @Test func whoHasMoreThanItsShareGoes() {
        let kept = KeptBytes(limit: 100 * Self.step)
        kept.change(from: 0, to: 60 * Self.step)
        kept.change(from: 0, to: 40 * Self.step)
        kept.change(from: 0, to: 1 * Self.step)
        #expect(kept.isTooMuch(60 * Self.step))
        #expect(kept.isTooMuch(40 * Self.step))
        #expect(!kept.isTooMuch(33 * Self.step))
        kept.change(from: 60 * Self.step, to: 0)
        #expect(!kept.isTooMuch(40 * Self.step))
        // Two are left: half for each.
        kept.change(from: 1 * Self.step, to: 61 * Self.step)
        #expect(kept.isTooMuch(61 * Self.step))
        #expect(!kept.isTooMuch(50 * Self.step))
    }

    @Test func littleIsNeverTooMuch() {
        let kept = KeptBytes(limit: 8 * Self.step)
        for _ in 0..<20 { kept.change(from: 0, to: 4 * Self.step) }
        #expect(!kept.isTooMuch(4 * Self.step))
        #expect(kept.isTooMuch(5 * Self.step))
    }
}
