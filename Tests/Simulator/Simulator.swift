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
        if let mutant = options.mutant { setenv("DEVICERPC_MUTANT", mutant.rawValue, 1) }
        Self.beginAgainWithoutChance()
        let database: Database
        do {
            database = try await Database.make()
        } catch {
            print("simulator: no database: \(error)")
            exit(3)
        }
        do {
            // A thread without a task of its own, whose jobs are the run's alone.
            try DedicatedThread.start(name: "simulator") { exit(Self.simulate(options, database)) }
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

    /// From here on nothing runs beside this.
    private static func simulate(_ options: Options, _ database: Database) -> Int32 {
        Scheduler.shared.install()
        var failed: [UInt64] = []
        var (sagas, statements, jobs, virtual) = (0, 0, 0, 0.0)
        var statuses: [String: Int] = [:]
        let begin = ContinuousClock.now
        var count = 0
        for seed in options.seeds {
            if let atMost = options.atMost, ContinuousClock.now - begin > atMost { break }
            count += 1
            let run = Run.run(seed: seed, database: database, prints: options.prints)
            sagas += run.sagas
            statements += run.statements
            jobs += run.jobs
            virtual += run.seconds
            statuses.merge(run.statuses) { $0 + $1 }
            if options.isVerbose {
                print("seed \(seed) \(run.digest) \(run.statements) statements, \(Int(run.seconds)) s")
            }
            // What is waited for may be killed for its slowness: what it found is out by then.
            defer { fflush(nil) }
            if !run.wrong.isEmpty {
                failed.append(seed)
                print("seed \(seed) FAILED:")
                for line in run.wrong { print("    \(line)") }
                if failed.count == 1, !options.prints {
                    print("    its history (again: ./dev simulate --seed \(seed)):")
                    for line in run.history.suffix(options.lines) { print("    \(line)") }
                }
            }
        }
        let seconds = Double((ContinuousClock.now - begin).nanoseconds) / 1e9
        let ends = statuses.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        print(
            """
            \(count) of \(options.seeds.count) seeds in \(Self.rounded(seconds)) s (\(Int(Double(count) / seconds * 3600)) an hour): \(sagas) sagas \
            (\(ends)), \(Self.rounded(virtual / 3600)) virtual hours, \(statements) requests to PostgreSQL, \(jobs) jobs
            """)
        if !failed.isEmpty { print("FAILED seeds: \(failed.map(String.init).joined(separator: " "))") }
        return failed.isEmpty ? 0 : 1
    }

    private static func rounded(_ number: Double) -> String {
        let tenths = Int((number * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}

/// What was asked for.
struct Options {
    static let usage = """
        usage: ./dev simulate [--seeds N] [--from S] [--seed S] [--at-most SECONDS] [--mutant NAME]
                              [--history] [--verbose] [--lines N]
        mutants: \(Mutant.allCases.map(\.rawValue).joined(separator: ", "))
        """

    var seeds: ClosedRange<UInt64> = 1...200
    /// The history as it happens.
    var prints = false
    var isVerbose = false
    /// The mend that is taken out.
    var mutant: Mutant?
    /// Begins no further seed after it.
    var atMost: Duration?
    /// Of a failed run's history.
    var lines = 150

    init?(_ arguments: [String]) {
        var (first, count): (UInt64, UInt64) = (1, 200)
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            switch argument {
            case "--history": self.prints = true
            case "--verbose": self.isVerbose = true
            case "--mutant":
                guard let mutant = rest.popFirst().flatMap({ Mutant(rawValue: $0) }) else { return nil }
                self.mutant = mutant
            case "--seeds", "--from", "--seed", "--lines", "--at-most":
                guard let number = rest.popFirst().flatMap({ UInt64($0) }) else { return nil }
                switch argument {
                case "--seeds": count = max(1, number)
                case "--from": first = number
                case "--at-most": self.atMost = .seconds(Int64(number))
                case "--lines": self.lines = Int(number)
                default: (first, count, self.prints) = (number, 1, true)
                }
            default: return nil
            }
        }
        self.seeds = first...(first + count - 1)
    }
}
