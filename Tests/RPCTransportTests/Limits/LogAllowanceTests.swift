import NIOCore
import Testing

@testable import RPCTransport

@Suite struct LogAllowanceTests {
    private typealias Line = LogAllowance<String>.Line

    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    @Test func oneLineASecondTellsHowManyWereLeftOut() {
        var allowance = LogAllowance<String>(capacity: 2)
        #expect(allowance.admit("a", at: self.start) == Line())
        for _ in 0..<1000 { #expect(allowance.admit("a", at: self.start + .milliseconds(999)) == nil) }
        #expect(allowance.admit("b", at: self.start + .milliseconds(999)) == Line(), "subjects don't share")
        #expect(allowance.admit("a", at: self.start + .seconds(1)) == Line(leftOut: 1000))
        #expect(allowance.admit("a", at: self.start + .seconds(1)) == nil)
        #expect(allowance.admit("a", at: self.start + .seconds(2)) == Line(leftOut: 1))
        #expect(allowance.admit("a", at: self.start + .seconds(3)) == Line())
    }

    @Test func subjectsThatAreForgottenAreCounted() {
        var allowance = LogAllowance<String>(capacity: 2)
        for name in ["a", "b", "c", "c"] { _ = allowance.admit(name, at: self.start) }
        #expect(allowance.admit("a", at: self.start) == nil)
        // There was no room for c, twice; a is forgotten with one.
        #expect(allowance.admit("d", at: self.start + .seconds(1)) == Line(leftOutOfOthers: 3))
        #expect(allowance.admit("e", at: self.start + .seconds(1)) == Line())
        #expect(allowance.admit("f", at: self.start + .seconds(1)) == nil)
        #expect(allowance.admit("d", at: self.start + .seconds(2)) == Line(leftOutOfOthers: 1))
    }

    @Test func whileNobodyWritesLinesAreLeftOut() {
        var allowance = LogAllowance<String>(capacity: 1)
        #expect(allowance.admit("a", at: self.start, isBusy: true) == nil)
        #expect(allowance.admit("a", at: self.start) == Line(leftOutOfOthers: 1))
        #expect(allowance.admit("a", at: self.start + .seconds(1), isBusy: true) == nil)
        #expect(allowance.admit("a", at: self.start + .seconds(1)) == Line(leftOut: 1))
    }
}
