import Testing

@testable import SagaRuntime

@Suite struct FlushQueueTests {
    @Test func admissionGivesWayToCompletionAndBothToUndo() {
        var queue = FlushQueue<String>()
        for number in 1...3 { queue.append("new \(number)", .admission) }
        queue.append("forward 1", .completion)
        queue.append("undo 1", .undo)
        queue.append("forward 2", .completion)
        #expect(queue.count == 6 && queue.count(of: .admission) == 3)
        #expect(queue.take(4) == ["undo 1", "forward 1", "forward 2", "new 1"])
        queue.append("undo 2", .undo)
        #expect(queue.take(2) == ["undo 2", "new 2"])
        #expect(queue.take(64) == ["new 3"])
        #expect(queue.isEmpty && queue.take(64).isEmpty)
    }

    @Test func recordsKnowTheirImportance() {
        let saga = MachineHarness()
        #expect(saga.commit()?.importance == .admission)
        saga.answer(.succeeded(output: "{}"))
        #expect(saga.commit()?.importance == .completion)
        saga.answer(.failed(StepError(.refused, reason: "REFUSED", message: "no")))
        #expect(saga.commit()?.importance == .undo)
        saga.answer(.undone(.undone))
        #expect(saga.commit()?.importance == .undo)
        #expect(saga.snapshot.status == .compensated)
    }
}
