import Testing

@testable import SagaRuntime

/// What a failed flush leads to, step by step.
@Suite struct FlushPartTests {
    private typealias Part = FlushPart<Int>

    @Test func anOutageIsWaitedForHoweverLong() {
        var part = Part([1, 2, 3])
        for _ in 0..<100 { #expect(part.failed(.outage) == .pause) }
        #expect(part.elements == [1, 2, 3])
    }

    @Test func aConflictIsTheSameAgainUpToABound() {
        var part = Part([1, 2])
        for _ in 1..<Part.patience { #expect(part.failed(.conflict) == .again) }
        #expect(part.failed(.conflict) == .compare)
        #expect(Self.parts(part.separate(.conflict)) == [[1], [2]])
    }

    @Test func aLockIsTriedOnceMoreAndShortlyThen() {
        var part = Part([1, 2, 3, 4])
        #expect(part.lockTimeout == Part.lockTimeout)
        #expect(part.failed(.lock) == .again)
        #expect(part.lockTimeout == Part.shortLockTimeout)
        #expect(part.failed(.lock) == .compare)
        guard case .parts(var halves) = part.separate(.lock) else {
            Issue.record("not halved")
            return
        }
        #expect(halves.map(\.elements) == [[1, 2], [3, 4]])
        // Half of it is known to wait: it is not tried twice.
        #expect(halves[0].lockTimeout == Part.shortLockTimeout && halves[0].failed(.lock) == .compare)
    }

    /// Whatever is the matter with one of 64, some dozen flushes find it, and it alone pays.
    @Test(arguments: [ErrorScope.lock, .record, .day, .conflict], [0, 7, 63])
    func oneOfManyIsFound(_ scope: ErrorScope, _ bad: Int) {
        var parts = [Part(Array(0..<64))]
        var (written, apart, refused): ([Int], [Int], [Int]) = ([], [], [])
        var flushes = 0
        while var part = parts.popLast(), flushes < 1000 {
            flushes += 1
            guard part.elements.contains(bad) else {
                written += part.elements
                continue
            }
            switch part.failed(scope) {
            case .pause: Issue.record("no outage")
            case .again: parts.append(part)
            case .compare:
                switch part.separate(scope) {
                case .again: parts.append(part)
                case .parts(let smaller): parts += smaller.reversed()
                case .aside: apart += part.elements
                case .refuse: refused += part.elements
                }
            }
        }
        #expect(written.sorted() == (0..<64).filter { $0 != bad })
        #expect(scope == .record ? refused == [bad] && apart.isEmpty : apart == [bad] && refused.isEmpty)
        #expect(flushes < (scope == .conflict ? 64 : 20), "\(flushes) flushes")
    }

    @Test func whatIsRefusedHasFailedTwice() {
        var part = Part([1])
        #expect(part.failed(.record) == .compare)
        guard case .again = part.separate(.record) else {
            Issue.record("refused at once")
            return
        }
        #expect(part.failed(.record) == .compare)
        guard case .refuse = part.separate(.record) else {
            Issue.record("not refused")
            return
        }
    }

    @Test func theSlowLaneTriesAllThenEach() {
        var part = Part(apart: [1, 2, 3])
        #expect(part.failed(.lock) == .compare)
        #expect(Self.parts(part.separate(.lock)) == [[1], [2], [3]])
        // Who waits alone may wait longer: nobody waits for it.
        #expect(Part(apart: [1]).lockTimeout == Part.lockTimeout)
        var one = Part(apart: [1])
        #expect(one.failed(.lock) == .compare)
        guard case .aside = one.separate(.lock) else {
            Issue.record("it does not go on waiting")
            return
        }
    }

    private static func parts(_ verdict: Part.Verdict) -> [[Int]] {
        if case .parts(let parts) = verdict { parts.map(\.elements) } else { [] }
    }
}
