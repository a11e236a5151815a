@testable import RPCTransport
import Testing

@Suite struct KeptBytesTests {
    private static let step = KeptBytes.step

    private let kept = KeptBytes(limit: 100 * Self.step)
    private let account = KeptBytes.Account()
    private let other = KeptBytes.Account()

    private func change(from old: Int, to new: Int, of account: KeptBytes.Account) {
        self.kept.change(from: old * Self.step, to: new * Self.step, of: account)
    }

    private func isTooMuch(_ part: Int, of account: KeptBytes.Account) -> Bool {
        self.kept.isTooMuch(part * Self.step, of: account)
    }

    @Test func nobodyIsTurnedAwayWithinTheBound() {
        self.change(from: 0, to: 100, of: self.account)
        #expect(!self.isTooMuch(100, of: self.account))
    }

    /// Past the bound it is those with more than an equal part, until it holds again.
    @Test func whoHasMoreThanItsShareGoes() {
        self.change(from: 0, to: 60, of: self.account)
        self.change(from: 0, to: 40, of: self.account)
        self.change(from: 0, to: 1, of: self.account)
        #expect(self.isTooMuch(60, of: self.account))
        #expect(self.isTooMuch(40, of: self.account))
        #expect(!self.isTooMuch(33, of: self.account))
        self.change(from: 60, to: 0, of: self.account)
        #expect(!self.isTooMuch(40, of: self.account))
        // Two are left: half for each.
        self.change(from: 1, to: 61, of: self.account)
        #expect(self.isTooMuch(61, of: self.account))
        #expect(!self.isTooMuch(50, of: self.account))
    }

    /// However little each of many has: the bound holds.
    @Test func littleIsTooMuchIfManyHaveIt() {
        for _ in 0..<101 { self.change(from: 0, to: 1, of: self.account) }
        #expect(self.isTooMuch(1, of: self.account))
    }

    /// Within its share an address may divide as it likes.
    @Test func partsOfASmallAddressMayDiffer() {
        self.change(from: 0, to: 90, of: self.account)
        for _ in 0..<30 { self.change(from: 0, to: 1, of: self.other) }
        self.change(from: 0, to: 15, of: self.other)
        #expect(!self.isTooMuch(15, of: self.other))
        #expect(self.isTooMuch(90, of: self.account))
    }

    /// Whoever opens more connections gets no more by that, and who keeps much on one stays if his address keeps little.
    @Test func addressesHaveEqualShares() {
        for _ in 0..<90 { self.change(from: 0, to: 1, of: self.account) }
        self.change(from: 0, to: 30, of: self.other)
        #expect(self.isTooMuch(1, of: self.account))
        #expect(!self.isTooMuch(30, of: self.other))
        for _ in 0..<90 { self.change(from: 1, to: 0, of: self.account) }
        // The other one is alone again: all of it is its share.
        self.change(from: 30, to: 101, of: self.other)
        #expect(self.isTooMuch(101, of: self.other))
        #expect(!self.isTooMuch(100, of: self.other))
    }
}
