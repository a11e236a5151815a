import Synchronization
import Testing

@testable import SagaRuntime

@Suite struct DeadlinesTests {
    private let deadlines = Deadlines()

    @Test(.timeLimit(.minutes(1)))
    func actionsRunInOrderOfTheirDeadlines() async {
        let deadlines = Deadlines()
        let (order, ran) = AsyncStream<Int>.makeStream()
        for delay in [90, 30, 60, 0] { _ = deadlines.add(after: .milliseconds(delay)) { ran.yield(delay) } }
        var seen: [Int] = []
        for await delay in order {
            seen.append(delay)
            if seen.count == 4 { break }
        }
        #expect(seen == [0, 30, 60, 90])
    }

    @Test(.timeLimit(.minutes(1)))
    func removedEntriesNeverRun() async {
        let deadlines = Deadlines()
        let (done, ran) = AsyncStream<Int>.makeStream()
        let count = Mutex(0)
        for _ in 0..<5000 {
            let entry = deadlines.add(after: .milliseconds(20)) { count.withLock { $0 += 1 } }
            deadlines.remove(entry)
        }
        _ = deadlines.add(after: .milliseconds(60)) { ran.yield(0) }
        for await _ in done { break }
        #expect(count.withLock { $0 } == 0)
    }

    @Test(.timeLimit(.minutes(1)))
    func aRaceEndsAtItsLimitThoughTheOperationGoesOn() async {
        let started = ContinuousClock.now
        let value = await Race.run(limit: .milliseconds(50), self.deadlines) {
            // Deaf to cancellation.
            await withCheckedContinuation { continuation in
                _ = self.deadlines.add(after: .seconds(2)) { continuation.resume() }
            }
            return 1
        } meanwhile: {
        }
        #expect(value == nil)
        #expect(ContinuousClock.now - started < .seconds(1))
    }

    @Test(.timeLimit(.minutes(1)))
    func aRaceReturnsWhatTheOperationReturns() async {
        #expect(
            await Race.run(limit: .seconds(30), self.deadlines) {
                7
            } meanwhile: {
            } == 7)
    }

    @Test(.timeLimit(.minutes(1)))
    func aCancelledRaceEndsAtOnce() async {
        let started = ContinuousClock.now
        let race = Task {
            await Race.run(limit: .seconds(30), self.deadlines) {
                await withCheckedContinuation { continuation in
                    _ = self.deadlines.add(after: .seconds(2)) { continuation.resume() }
                }
                return 1
            } meanwhile: {
            }
        }
        race.cancel()
        #expect(await race.value == nil)
        #expect(ContinuousClock.now - started < .seconds(1))
    }
}
