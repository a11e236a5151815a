import NIOCore
import Testing

@testable import RPCTransport

@Suite struct FrameBudgetTests {
    private static func at(_ seconds: Double) -> NIODeadline { .uptimeNanoseconds(UInt64((seconds + 10) * 1e9)) }

    private static func budget(_ change: (inout FrameBudget.Configuration) -> Void = { _ in }) -> FrameBudget {
        var configuration = FrameBudget.Configuration()
        change(&configuration)
        return FrameBudget(configuration, now: Self.at(0))
    }

    @Test func aBurstIsFineAndMoreIsNot() {
        var budget = Self.budget { $0.controlFrames = .init(burst: 10, perSecond: 2) }
        for _ in 0..<10 { budget.received(.other) }
        #expect(budget.violation == nil)
        budget.received(.other)
        #expect(budget.violation == .tooManyControlFrames)
    }

    @Test func timeRefills() {
        var budget = Self.budget { $0.controlFrames = .init(burst: 10, perSecond: 2) }
        for second in 0..<100 {
            budget.refill(at: Self.at(Double(second)))
            budget.received(.other)
            budget.received(.other)
        }
        #expect(budget.violation == nil)
    }

    /// What gRPC clients do: a call, with WINDOW_UPDATEs and a PING in answer to its response.
    @Test func goodOrderIsFree() {
        var budget = Self.budget { $0.controlFrames = .init(burst: 10, perSecond: 0) }
        for _ in 0..<1000 {
            budget.received(.headers(length: 60))
            budget.headersAreTaken()
            budget.received(.data)
            budget.dataIsTaken()
            budget.sentHeaders()
            budget.sentData(bytes: 20, isLast: true)
            budget.sentHeaders()
            for _ in 0..<4 { budget.received(.other) }
        }
        #expect(budget.violation == nil)
    }

    /// A large stream: WINDOW_UPDATEs for stream and connection, and a PING, for each DATA frame.
    @Test func downloadsAreFree() {
        var budget = Self.budget { $0.controlFrames = .init(burst: 10, perSecond: 0) }
        for _ in 0..<1000 {
            budget.sentData(bytes: 16384, isLast: false)
            for _ in 0..<3 { budget.received(.other) }
        }
        #expect(budget.violation == nil)
    }

    /// Single bytes asked for by single WINDOW_UPDATEs earn nothing.
    @Test func windowsOfOneByte() {
        var budget = Self.budget { $0.controlFrames = .init(burst: 10, perSecond: 0) }
        for _ in 0..<11 {
            budget.received(.other)
            budget.sentData(bytes: 1, isLast: false)
        }
        #expect(budget.violation == .tooManyControlFrames)
    }

    /// A header block that nobody takes counts by its size.
    @Test func droppedHeaderBlocks() {
        var budget = Self.budget { $0.controlFrames = .init(burst: 200, perSecond: 0) }
        for _ in 0..<3 { budget.received(.headers(length: 16384)) }
        #expect(budget.violation == nil)
        budget.received(.continuation(length: 16384))
        #expect(budget.violation == .tooManyControlFrames)
    }

    @Test func emptyAndUnwantedDataCounts() {
        var budget = Self.budget { $0.controlFrames = .init(burst: 10, perSecond: 0) }
        for _ in 0..<11 { budget.received(.data) }
        #expect(budget.violation == .tooManyControlFrames)
    }

    @Test func resets() {
        var budget = Self.budget { $0.resets = .init(burst: 100, perSecond: 1) }
        for _ in 0..<100 { budget.received(.reset) }
        #expect(budget.violation == nil)
        budget.received(.reset)
        #expect(budget.violation == .tooManyResets)
    }

    /// Who is answered now and then may reset for ever; who only resets may not.
    @Test func unansweredResets() {
        var budget = Self.budget { $0.unansweredResets = .init(burst: 10, perSecond: 0) }
        for _ in 0..<1000 {
            budget.unansweredReset()
            budget.callAnswered()
        }
        #expect(budget.violation == nil)
        for _ in 0..<11 { budget.unansweredReset() }
        #expect(budget.violation == .tooManyUnansweredResets)
    }

    @Test func errors() {
        var budget = Self.budget { $0.errors = .init(burst: 10, perSecond: 0) }
        for _ in 0..<11 { budget.error() }
        #expect(budget.violation == .tooManyErrors)
        budget.refill(at: Self.at(1000))
        #expect(budget.violation == .tooManyErrors)
    }
}
