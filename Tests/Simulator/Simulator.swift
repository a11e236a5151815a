import Glibc
import Logging

@testable import SagaRuntime

/// Runs the engine under seeds: `./dev simulate` (docs/simulator.md).
@main
enum Simulator {
    static let silent = Logger(label: "simulator") { _ in SwiftLogNoOpLogHandler() }

    static func main() async {
        guard let options = Options(Array(CommandLine.arguments.dropFirst())) else {
            print(Options.usage)
            exit(2)
        }
        Self.beginAgainWithoutChance()
        if options.jobs > 1 {
            var batches = Batches(options)
            exit(batches.run())
        }
        let database: Database
        do {
            database = try await Database.make()
        } catch {
            print("simulator: no database: \(error)")
            exit(3)
        }
        do {
            // A thread without a task of its own, whose jobs are the run's alone.
            try DedicatedThread.start(name: "simulator") {
                // From here on nothing runs beside this.
                Scheduler.shared.install()
                exit(
                    options.runsRecorded
                        ? RecordedMutant.runAll(database, only: options.mutant) : Self.simulate(options, database))
            }
        } catch {
            print("simulator: no thread: \(error)")
            exit(3)
        }
        await withUnsafeContinuation { (_: UnsafeContinuation<Void, Never>) in }
    }

    /// Hashes are the same in every process that has this in its environment from the start.
    private static func beginAgainWithoutChance() {
        guard getenv("SWIFT_DETERMINISTIC_HASHING") == nil else { return }
        setenv("SWIFT_DETERMINISTIC_HASHING", "1", 1)
        execv("/proc/self/exe", CommandLine.unsafeArgv)
        print("simulator: can't begin again: \(String(cString: strerror(errno)))")
        exit(3)
    }

    private static func simulate(_ options: Options, _ database: Database) -> Int32 {
        Mutant.takeOut(options.mutant)
        var failed: [UInt64] = []
        var sums = ["sagas": 0.0, "requests": 0, "virtual": 0]
        var statuses: [String: Int] = [:]
        var digest = Digest()
        let begin = ContinuousClock.now
        var count = 0
        for seed in options.seeds {
            if let atMost = options.atMost, ContinuousClock.now - begin > atMost { break }
            count += 1
            let run = Run.run(Plan(seed: seed), database: database, prints: options.prints)
            sums["sagas", default: 0] += Double(run.sagas)
            sums["requests", default: 0] += Double(run.statements)
            sums["virtual", default: 0] += run.seconds
            statuses.merge(run.statuses) { $0 + $1 }
            digest.add(run.digest)
            if options.isVerbose {
                print("seed \(seed) \(run.digest) \(run.statements) statements, \(Int(run.seconds)) s")
            }
            // What is waited for may be killed for its slowness: what it found is out by then.
            defer { fflush(nil) }
            if !run.wrong.isEmpty {
                failed.append(seed)
                print("seed \(seed) FAILED:")
                for line in run.wrong { print("    \(line)") }
                if failed.count == 1, options.lines > 0, !options.prints { Self.explain(run, options, database) }
            } else if options.isOne, !options.prints {
                for line in run.history { print(line) }
            }
        }
        let summary = Summary(
            seeds: options.seeds.count, count: count, time: ContinuousClock.now - begin, sums: sums, statuses: statuses,
            digest: digest)
        if options.isVerbose { print(summary.parts) }
        print(summary.text)
        if !failed.isEmpty { print("FAILED seeds: \(failed.map(String.init).joined(separator: " "))") }
        return failed.isEmpty ? 0 : 1
    }

    /// The smallest history that still fails in the same way.
    private static func explain(_ run: Run, _ options: Options, _ database: Database) {
        var run = run
        if options.shrinks > .zero {
            var shrinking = Shrinking(run, database, limit: options.shrinks)
            run = shrinking.shrink()
            print("    the smallest of \(shrinking.runs) smaller runs that fails like it:")
            for line in run.wrong { print("    \(line)") }
        }
        print("    its history (again: ./dev simulate --seed \(run.plan.seed); all of it: with --history):")
        for line in run.page(options.lines) { print("    \(line)") }
    }
}

/// What was asked for.
struct Options {
    static let usage = """
        usage: ./dev simulate [--seeds N] [--from S] [--seed S] [--at-most SECONDS] [--mutant NAME]
                              [--history] [--verbose] [--lines N] [--shrink SECONDS] [--jobs N]
               ./dev simulate --mutants [--mutant NAME]
        mutants: \(Mutant.allCases.map(\.rawValue).joined(separator: ", "))
        """

    var seeds: ClosedRange<UInt64> = 1...200
    /// The history as it happens.
    var prints = false
    /// One seed, about which all is to be known.
    var isOne = false
    /// How long a smaller run is looked for that fails like the first one.
    var shrinks = Duration.seconds(60)
    var isVerbose = false
    /// The mend that is taken out.
    var mutant: Mutant?
    /// The recorded seed of each mend, without it.
    var runsRecorded = false
    /// Begins no further seed after it.
    var atMost: Duration?
    /// Processes at a time; the history of one seed needs one.
    var jobs = 2
    /// Of a failed run's history: a page.
    var lines = 60

    init?(_ arguments: [String]) {
        var (first, count): (UInt64, UInt64) = (1, 200)
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            switch argument {
            case "--history": self.prints = true
            case "--verbose": self.isVerbose = true
            case "--mutants": self.runsRecorded = true
            case "--mutant":
                guard let mutant = rest.popFirst().flatMap({ Mutant(rawValue: $0) }) else { return nil }
                self.mutant = mutant
            case "--seeds", "--from", "--seed", "--lines", "--at-most", "--shrink", "--jobs":
                guard let number = rest.popFirst().flatMap({ UInt64($0) }) else { return nil }
                switch argument {
                case "--seeds": count = max(1, number)
                case "--from": first = number
                case "--at-most": self.atMost = .seconds(Int64(number))
                case "--jobs": self.jobs = max(1, min(64, Int(number)))
                case "--shrink": self.shrinks = .seconds(Int64(number))
                case "--lines": self.lines = Int(number)
                default: (first, count, self.isOne) = (number, 1, true)
                }
            default: return nil
            }
        }
        self.seeds = first...(first + count - 1)
        if self.prints || self.isOne || self.runsRecorded || count < 20 { self.jobs = 1 }
    }
}
