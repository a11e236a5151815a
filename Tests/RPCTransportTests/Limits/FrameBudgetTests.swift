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
            budget.callWasReset(isAnswered: false, age: .zero, timeout: nil)
            budget.callAnswered()
        }
        #expect(budget.violation == nil)
        for _ in 0..<11 { budget.callWasReset(isAnswered: false, age: .milliseconds(100), timeout: .seconds(1)) }
        #expect(budget.violation == .tooManyUnansweredResets)
    }

    /// Which resets count as rapid: within 100 ms, and half of the time that the client gave its call.
    @Test(
        arguments: [
            (false, 0, nil, true), (false, 100, nil, true), (false, 101, nil, false), (true, 0, nil, false),
            (false, 0, 0, true), (false, 0, 20, true), (false, 10, 20, true), (false, 11, 20, false),
            (false, 100, 1000, true), (false, 101, 1000, false),
        ] as [(Bool, Int64, Int64?, Bool)])
    func earlyResets(isAnswered: Bool, age: Int64, timeout: Int64?, counts: Bool) {
        var budget = Self.budget { $0.unansweredResets = .init(burst: 0, perSecond: 0) }
        budget.callWasReset(
            isAnswered: isAnswered, age: .milliseconds(age), timeout: timeout.map { .milliseconds($0) })
        #expect((budget.violation == .tooManyUnansweredResets) == counts)
    }

    /// An outage: thousands of calls a second reach their deadlines, and are reset by the client, found late by the server,
    /// or both.
    @Test func deadlineStorms() {
        var budget = Self.budget()
        for tick in 0..<3000 {
            budget.refill(at: Self.at(Double(tick) / 100))
            for number in 0..<50 {
                budget.received(.reset)
                if number % 2 == 0 {
                    budget.callWasReset(isAnswered: false, age: .seconds(1), timeout: .seconds(1))
                } else {
                    budget.callAnswered()
                }
            }
        }
        #expect(budget.violation == nil)
    }

    /// Who gives its calls next to no time, to have their resets count as late, stays within the budget of all resets.
    @Test func tinyTimeouts() {
        var budget = Self.budget { $0.resets = .init(burst: 100, perSecond: 0) }
        for _ in 0..<101 {
            budget.received(.reset)
            budget.callWasReset(isAnswered: false, age: .milliseconds(1), timeout: .milliseconds(1))
        }
        #expect(budget.violation == .tooManyResets)
    }

    @Test func errors() {
        var budget = Self.budget { $0.errors = .init(burst: 10, perSecond: 0) }
        for _ in 0..<11 { budget.error() }
        #expect(budget.violation == .tooManyErrors)
        budget.refill(at: Self.at(1000))
        #expect(budget.violation == .tooManyErrors)
    }
}
