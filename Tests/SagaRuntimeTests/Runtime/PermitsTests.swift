import Synchronization
import Testing

@testable import SagaRuntime

@Suite struct PermitsTests {
    private static let create = PermitKind(gate: "CREATE", isUndo: false)
    private static let undo = PermitKind(gate: "CREATE", isUndo: true)

    /// What waited is to ask its machine again: its deadline may have passed meanwhile.
    @Test func tellsWhetherItWaited() async {
        let permits = Permits(limit: 1)
        var first = Permits.Holding(permits)
        #expect(await !first.hold(Self.create))
        #expect(await !first.hold(Self.create), "the permit in hand is good for the next call too")
        let second = Task {
            var second = Permits.Holding(permits)
            let hasWaited = await second.hold(Self.create)
            second.release()
            return hasWaited
        }
        while permits.waiting(Self.create) == 0 { await Task.yield() }
        first.release()
        #expect(await second.value)
        #expect(await !first.hold(Self.create))
        first.release()
    }

    /// A result is not kept in memory until a permit is free for a step that may as well be in doubt.
    @Test func resultsDoNotWaitForRepeatableSteps() throws {
        let saga = MachineHarness()
        saga.commit()
        saga.answer(.succeeded(output: "{}"))
        let created = try #require(saga.commit())
        let definition = saga.machine.definition
        #expect(
            definition.permit(after: created) { _ in false } == PermitKind(gate: "QUOTA", isUndo: false))
        saga.answer(.succeeded(output: "{}"))
        let reported = try #require(saga.commit())
        #expect(definition.permit(after: reported) { _ in false } == nil)
    }

    /// Several wait, each for a permit of its kind; returns in which order they got it.
    private static func order(
        _ permits: Permits, _ waiting: [(name: String, kind: PermitKind, user: String, isAdmission: Bool)],
        whileHolding first: inout [Permits.Holding]
    ) async -> [String] {
        let got = Order()
        var tasks: [Task<Void, Never>] = []
        for one in waiting {
            let before = permits.waiting(one.kind)
            tasks.append(
                Task {
                    var holding = Permits.Holding(permits, user: one.user)
                    _ = await holding.hold(one.kind, PermitErrand(isAdmission: one.isAdmission))
                    got.append(one.name)
                    holding.release()
                })
            while permits.waiting(one.kind) == before { await Task.yield() }
        }
        for index in first.indices { first[index].release() }
        for task in tasks { await task.value }
        return got.names
    }

    private final class Order: Sendable {
        private let state = Mutex<[String]>([])
        var names: [String] { self.state.withLock { $0 } }
        func append(_ name: String) { self.state.withLock { $0.append(name) } }
    }

    @Test func usersTakeTurnsAndNewSagasComeLast() async {
        let permits = Permits(limit: 1)
        var holders = [Permits.Holding(permits)]
        _ = await holders[0].hold(Self.create)
        let waiting: [(String, PermitKind, String, Bool)] = [
            ("ann, new", Self.create, "ann", true), ("ann 1", Self.create, "ann", false),
            ("ann 2", Self.create, "ann", false), ("ann 3", Self.create, "ann", false),
            ("bob 1", Self.create, "bob", false), ("bob, new", Self.create, "bob", true),
        ]
        #expect(
            await Self.order(
                permits, waiting.map { (name: $0.0, kind: $0.1, user: $0.2, isAdmission: $0.3) }, whileHolding: &holders
            )
                == ["ann 1", "bob 1", "ann 2", "ann 3", "ann, new", "bob, new"])
    }

    @Test func undoHasPermitsOfItsOwn() async {
        let permits = Permits(limit: 1)
        var forward = Permits.Holding(permits)
        var undo = Permits.Holding(permits)
        #expect(await !forward.hold(Self.create))
        #expect(await !undo.hold(Self.undo))
        forward.release()
        undo.release()
    }

    @Test func aDependencysLimitGoesForAllOfIts() async {
        let limits = Mutex(CallLimits(concurrency: 2))
        let permits = Permits(limit: 1024) { gate in gate == "site-a" ? limits.withLock { $0 } : nil }
        #expect(permits.isLimited("site-a") && !permits.isLimited("site-b"))
        let kind = PermitKind(gate: "site-a", isUndo: false)
        var holders = [Permits.Holding(permits), Permits.Holding(permits)]
        for index in holders.indices { #expect(await !holders[index].hold(kind)) }
        let third = Task {
            var third = Permits.Holding(permits)
            return await third.hold(kind)
        }
        while permits.waiting(kind) == 0 { await Task.yield() }
        // A replica has left: this one's share is larger.
        limits.withLock { $0.concurrency = 3 }
        permits.refresh()
        #expect(await third.value)
        for index in holders.indices { holders[index].release() }
    }

    @Test func callsFollowEachOtherAtTheRate() async {
        let permits = Permits(limit: 1024) { _ in CallLimits(callsPerSecond: 50) }
        let kind = PermitKind(gate: "site-a", isUndo: false)
        let start = BootTime.now
        await withDiscardingTaskGroup { group in
            for _ in 0..<25 {
                group.addTask {
                    var holding = Permits.Holding(permits)
                    _ = await holding.hold(kind, PermitErrand(isAdmission: true))
                    holding.release()
                }
            }
        }
        // 25 at 50 a second, of which a tenth of a second's (5) and the first may come at once.
        let took = BootTime.now - start
        #expect(took >= .milliseconds(360), "\(took)")
    }

    @Test func whoWouldWaitIsToldForHowLong() async {
        let permits = Permits(limit: 1024) { gate in gate == "site-a" ? CallLimits(callsPerSecond: 0.1) : nil }
        let kind = PermitKind(gate: "site-a", isUndo: false)
        #expect(permits.outlook("site-a", user: "ann")?.wait == .zero)
        #expect(permits.outlook("site-b", user: "ann")?.wait == .zero)
        let calls = PermitErrand(isAdmission: true, steps: ["CREATE", "START"])
        var first = Permits.Holding(permits)
        _ = await first.hold(kind, calls)
        let waiting = (0..<3).map { _ in
            Task {
                var holding = Permits.Holding(permits, user: "ann")
                _ = await holding.hold(kind, calls)
                holding.release()
            }
        }
        while permits.waiting(kind) < 3 { await Task.yield() }
        // Ten seconds until the next call, then three new sagas of two calls each. Users take turns.
        #expect(permits.outlook("site-a", user: "ann").map { abs($0.wait.inSeconds - 70) < 11 } == true)
        #expect(permits.outlook("site-a", user: "bob").map { abs($0.wait.inSeconds - 30) < 11 } == true)
        permits.endWaits()
        for task in waiting { await task.value }
        first.end()
    }

    /// Who has left uses up no call of those who wait.
    @Test func whoHasLeftGivesUpItsTurn() async throws {
        let permits = Permits(limit: 1)
        let kind = PermitKind(gate: "site-a", isUndo: false)
        var first = Permits.Holding(permits)
        _ = await first.hold(kind)
        var generator = SystemRandomNumberGenerator()
        let ids = (0..<3).map { SagaID(milliseconds: $0, using: &generator) }
        let got = Order()
        var tasks: [Task<Void, Never>] = []
        for (number, id) in ids.enumerated() {
            tasks.append(
                Task {
                    var holding = Permits.Holding(permits)
                    #expect(await holding.hold(kind, PermitErrand(isAdmission: true, id: id)))
                    if holding.isHeld { got.append("\(number)") }
                    holding.release()
                })
            while permits.waiting(kind) <= number { await Task.yield() }
        }
        permits.withdraw(ids[1])
        await tasks[1].value
        #expect(permits.waiting(kind) == 2)
        first.release()
        for task in tasks { await task.value }
        #expect(got.names == ["0", "2"])
    }
}
