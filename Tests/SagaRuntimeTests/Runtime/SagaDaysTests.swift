@testable import SagaRuntime
import Testing

@Suite struct SagaDaysTests {
    private static let day: Int64 = 20_787  // 2026-11-30
    private let start = BootTime(nanoseconds: 1_000_000_000_000)

    private func id(_ day: Int64, milliseconds: Int64 = 0) -> SagaID {
        var generator = SystemRandomNumberGenerator()
        return SagaID(milliseconds: day * 86_400_000 + milliseconds, using: &generator)
    }

    private func leaves(_ days: SagaDays, _ ids: [SagaID], _ now: BootTime) -> [SagaLeaf] {
        days.parts(ids, now: now, of: \.self).map(\.leaf)
    }

    @Test func leafIsNamedAfterItsDay() {
        #expect(SagaLeaf(day: Self.day).state == "saga_state_20261130")
        #expect(SagaLeaf(day: Self.day).event == "saga_event_20261130")
        #expect(SagaLeaf.parent.state == "saga_state")
    }

    @Test func batchIsSplitByDayAndKeepsItsOrder() {
        let days = SagaDays()
        days.learn([Self.day, Self.day + 1], asked: self.start)
        let ids = [
            self.id(Self.day - 1), self.id(Self.day, milliseconds: 86_399_999), self.id(Self.day + 1),
            self.id(Self.day, milliseconds: 5), self.id(Self.day + 9),
        ]
        let parts = days.parts(ids, now: self.start, of: \.self)
        #expect(parts.map(\.leaf) == [.parent, SagaLeaf(day: Self.day), SagaLeaf(day: Self.day + 1)])
        #expect(parts.map(\.elements) == [[ids[0], ids[4]], [ids[1], ids[3]], [ids[2]]])
    }

    @Test func listIsTrustedForAMinute() {
        let days = SagaDays()
        let ids = [self.id(Self.day)]
        #expect(self.leaves(days, ids, self.start) == [.parent])
        days.learn([Self.day], asked: self.start)
        #expect(self.leaves(days, ids, self.start + .seconds(60)) == [SagaLeaf(day: Self.day)])
        #expect(self.leaves(days, ids, self.start + .seconds(61)) == [.parent])
    }

    /// A list that was asked for before a leaf was found missing may still have it.
    @Test func missingLeafComesBackWithANewListOnly() {
        let days = SagaDays()
        let ids = [self.id(Self.day), self.id(Self.day + 1)]
        let both = [SagaLeaf(day: Self.day), SagaLeaf(day: Self.day + 1)]
        days.learn([Self.day, Self.day + 1], asked: self.start)
        days.forget([both[0], .parent], now: self.start + .seconds(2))
        #expect(self.leaves(days, ids, self.start + .seconds(3)) == [.parent, both[1]])
        days.learn([Self.day, Self.day + 1], asked: self.start + .seconds(1))
        #expect(self.leaves(days, ids, self.start + .seconds(3)) == [.parent, both[1]])
        days.learn([Self.day, Self.day + 1], asked: self.start + .seconds(3))
        #expect(self.leaves(days, ids, self.start + .seconds(3)) == both)
        // Answers may overtake each other.
        days.learn([], asked: self.start + .seconds(2))
        #expect(self.leaves(days, ids, self.start + .seconds(3)) == both)
    }

    @Test(arguments: [
        ("FOR VALUES FROM ('saga_1795996800000') TO ('saga_1796083200000')", 20_787 as Int64?),
        ("FOR VALUES FROM ('saga_1795996800000') TO ('saga_1796169600000')", nil),
        ("FOR VALUES FROM ('saga_1795996800001') TO ('saga_1796083200001')", nil),
        ("FOR VALUES FROM (MINVALUE) TO ('saga_1796083200000')", nil), ("DEFAULT", nil), ("", nil),
        ("FOR VALUES FROM ('saga_-9223372036854775808') TO ('x')", nil),
        ("FOR VALUES FROM ('saga_9223372036854775807') TO ('x')", nil),
    ])
    func boundsAreThoseOfADay(bounds: String, day: Int64?) {
        #expect(PartitionKeeper.day(ofBounds: bounds) == day)
    }

    /// What looks for sagas that aren't over passes the other days by, but only while the list has all that is attached.
    @Test func openLeavesAreThoseOfACompleteList() {
        let days = SagaDays()
        func learn(isComplete: Bool, after seconds: Int) {
            days.learn(
                [Self.day - 9, Self.day, Self.day + 1], open: [Self.day, Self.day + 1], isComplete: isComplete,
                asked: self.start + .seconds(seconds))
        }
        #expect(days.open(now: self.start) == [.parent])
        learn(isComplete: false, after: 0)
        #expect(days.open(now: self.start) == [.parent])
        learn(isComplete: true, after: 1)
        #expect(days.open(now: self.start) == [SagaLeaf(day: Self.day), SagaLeaf(day: Self.day + 1)])
        #expect(days.open(now: self.start + .seconds(62)) == [.parent])
        days.forget([SagaLeaf(day: Self.day - 9)], now: self.start + .seconds(2))
        #expect(days.open(now: self.start + .seconds(2)) == [.parent])
        learn(isComplete: true, after: 3)
        #expect(days.open(now: self.start + .seconds(3)).count == 2)
    }

    /// Groups start at multiples of sixteen days, so that there are few of them.
    @Test func leavesAreReadSixteenDaysAtATime() {
        let days: [Int64] = [15, 16, 18, 31, 32, 400]
        let groups = SagaLeafGroup.groups(of: days.map { SagaLeaf(day: $0) })
        #expect(groups.map(\.start) == [0, 16, 32, 400])
        #expect(groups.flatMap(\.leaves).map(\.day) == days)
        #expect(groups[1].suffix == "_19700117_8005")
        #expect(SagaLeafGroup.groups(of: [.parent]) == [.parents])
        #expect(SagaLeafGroup.parents.leaves == [.parent])
        #expect(SagaLeafGroup.groups(of: []).isEmpty)
        let statements = LeafStatements()
        let names = groups.map { statements.statement("look", over: $0) { $0.suffix }.name }
        #expect(Set(names).count == groups.count)
        #expect(statements.statement("look", over: .parents) { _ in "" }.name == "look")
    }

    @Test func statementsAreMadeOnceForEachLeaf() {
        let statements = LeafStatements()
        var made = 0
        func statement(_ day: Int64) -> SQLStatement {
            statements.statement("look", on: SagaLeaf(day: day)) { leaf in
                made += 1
                return "SELECT 1 FROM \(leaf.state)"
            }
        }
        #expect(statement(Self.day) == statement(Self.day))
        #expect(statement(Self.day).name == "day_20261130_look")
        #expect(statement(Self.day + 1).text == "SELECT 1 FROM saga_state_20261201")
        #expect(made == 2)
        // What is kept is bounded.
        for day in 0..<5000 { _ = statement(Int64(day)) }
        #expect(statement(Self.day).text == "SELECT 1 FROM saga_state_20261130")
    }
}
