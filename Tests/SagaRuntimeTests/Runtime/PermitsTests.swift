import Testing

@testable import SagaRuntime

@Suite struct PermitsTests {
    /// What waited is to ask its machine again: its deadline may have passed meanwhile.
    @Test func tellsWhetherItWaited() async {
        let permits = Permits(limit: 1)
        var first = Permits.Holding(permits)
        #expect(await !first.hold("CREATE"))
        #expect(await !first.hold("CREATE"), "the permit in hand is good for the next call too")
        let second = Task {
            var second = Permits.Holding(permits)
            let hasWaited = await second.hold("CREATE")
            second.release()
            return hasWaited
        }
        while permits.waiting("CREATE") == 0 { await Task.yield() }
        first.release()
        #expect(await second.value)
        #expect(await !first.hold("CREATE"))
        first.release()
    }

    /// A result is not kept in memory until a permit is free for a step that may as well be in doubt.
    @Test func resultsDoNotWaitForRepeatableSteps() throws {
        let saga = MachineHarness()
        saga.commit()
        saga.answer(.succeeded(output: "{}"))
        let created = try #require(saga.commit())
        #expect(saga.machine.definition.permit(after: created) == "QUOTA")
        saga.answer(.succeeded(output: "{}"))
        let reported = try #require(saga.commit())
        #expect(saga.machine.definition.permit(after: reported) == nil)
    }
}
