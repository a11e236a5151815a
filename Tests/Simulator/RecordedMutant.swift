import Glibc

@testable import SagaRuntime

/// A seed that finds what a mend is for, once the mend is taken out (docs/simulator.md).
///
/// A change to `Plan` or to the engine makes other runs of the same seeds, and a recorded one may find nothing any more. Then the
/// next seeds of the same themes are tried, and the one that does is named, to be recorded.
struct RecordedMutant {
    /// Of the table in the engine's design: what went wrong before the mend. `nil`: it never did, and must not.
    var row: Int?
    var mutant: Mutant
    var seed: UInt64
    /// In what the oracle says.
    var finding: String
    var themes: Set<Plan.Theme>

    private static let mostTries = 60

    static let all: [RecordedMutant] = [
        Self(
            row: 1, mutant: .unsentIntentsAreDoubtful, seed: 192, finding: "PARKED for no reason",
            themes: [.stops]),
        Self(
            row: 2, mutant: .refusalsAreAboutRecords, seed: 11, finding: "waits to this day",
            themes: [.database]),
        Self(
            row: 3, mutant: .callsGoToWhatIsHere, seed: 83, finding: "COMPENSATED, with 1 things",
            themes: [.sites]),
        Self(
            row: 4, mutant: .whatWaitsStaysAwake, seed: 100, finding: "refused as one too many",
            themes: [.asleep]),
        Self(
            row: 5, mutant: .whatWaitedCountsAsSent, seed: 489, finding: "nothing but a queue",
            themes: [.queue]),
        Self(
            row: 6, mutant: .locksHoldUpTheFlush, seed: 99, finding: "because of others' rows",
            themes: [.locks]),
        Self(
            row: 7, mutant: .timeoutsCountedNothing, seed: 222, finding: "a count of",
            themes: [.counting]),
        Self(
            row: 8, mutant: .undoGivesUpWhenRefused, seed: 81, finding: "PARKED for no reason",
            themes: [.provider]),
        Self(
            row: 9, mutant: .queuedCreationsStay, seed: 11, finding: "refused for good, and started all the same",
            themes: [.database]),
        Self(
            row: 10, mutant: .waitingIsNoProgress, seed: 29, finding: "PARKED for no reason",
            themes: [.jobs]),
        Self(
            row: 11, mutant: .claimsAskForNoSite, seed: 1, finding: "can never call its provider",
            themes: [.sites]),
        Self(
            row: 12, mutant: .firstFindingEndsDoubt, seed: 87, finding: "COMPENSATED, with 1 things",
            themes: [.doubt]),
        Self(
            row: 13, mutant: .intervalsFollowTheDatabase, seed: 872, finding: "things",
            themes: [.clocks]),
        Self(
            row: 14, mutant: .answersCountWhenTheyCome, seed: 108, finding: "things",
            themes: [.doubt]),
        Self(
            row: 15, mutant: .quarantineIsNotTold, seed: 12, finding: "nobody is told",
            themes: [.rows]),
        Self(
            row: nil, mutant: .sleepIgnoresCommands, seed: 744, finding: "was consumed after",
            themes: [.commands]),
        Self(
            row: nil, mutant: .sleepCountsInAnyEpoch, seed: 123, finding: "things",
            themes: [.clocks, .asleep]),
        Self(
            row: nil, mutant: .lateCallsAreSent, seed: 53, finding: "nothing but a queue",
            themes: [.queue]),
        Self(
            row: nil, mutant: .undoLeavesJobs, seed: 8, finding: "things",
            themes: [.jobs]),
    ]

    private var name: String { "\(self.row.map { "row \($0)" } ?? "no row"), \(self.mutant.rawValue)" }

    /// Each with its mend, and without.
    ///
    /// - Parameter mutant: this one alone; `nil`: all.
    static func runAll(_ database: Database, only mutant: Mutant?) -> Int32 {
        let found = Self.all.filter { mutant == nil || $0.mutant == mutant }.map { $0.run(database) }
        return found.allSatisfy { $0 } ? 0 : 1
    }

    /// - Returns: whether a seed that is clean with the mend fails without it.
    private func run(_ database: Database) -> Bool {
        let others = (1...10_000).lazy.filter { $0 != self.seed && self.themes.contains(Plan(seed: $0).theme) }
        for seed in [self.seed] + others.prefix(Self.mostTries) {
            Mutant.takeOut(self.mutant)
            let without = Run.run(Plan(seed: seed), database: database, prints: false)
            guard let found = without.wrong.first(where: { $0.contains(self.finding) }) else { continue }
            Mutant.takeOut(nil)
            let whole = Run.run(Plan(seed: seed), database: database, prints: false)
            let note = seed == self.seed ? "" : " (the recorded one, \(self.seed), finds nothing any more)"
            print("\(self.name), seed \(seed): \(found)\(note)")
            for line in whole.wrong { print("    fails with the mend too: \(line)") }
            fflush(nil)
            return whole.wrong.isEmpty
        }
        print("\(self.name): NOT FOUND by \(self.seed) and \(Self.mostTries) others")
        return false
    }
}
