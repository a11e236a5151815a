import Fuzzing
import Glibc
import Testing

/// The short run of what `./dev fuzz` does at length: every kept input, then changed ones for some seconds. A failure
/// names the seed, and the command that keeps the input.
@Suite struct FuzzingTests {
    private static let givenSeed = getenv("FUZZ_SEED").flatMap { UInt64(String(cString: $0)) }
    private static let seed = givenSeed ?? UInt64.random(in: 0...UInt64(UInt32.max))

    /// Longer for a seed that broke something, since the machine that it is run again on may be slower.
    private static let duration = Duration.seconds(givenSeed == nil ? 4 : 20)

    @Test(arguments: FuzzTarget.allCases)
    func keptInputs(target: FuzzTarget) async throws {
        let corpus = try Corpus.inputs(of: target)
        #expect(!corpus.isEmpty)
        await onThread {
            for (name, bytes) in corpus { #expect(target.run(bytes) == [], "\(name)") }
        }
    }

    @Test(arguments: FuzzTarget.allCases)
    func changedInputs(target: FuzzTarget) async throws {
        let corpus = try Corpus.inputs(of: target).map(\.bytes)
        await onThread {
            // Ahead of it all: a crash says nothing more.
            print("fuzzing \(target.rawValue) with FUZZ_SEED=\(Self.seed)")
            var mutator = ByteMutator(seed: Self.seed)
            let clock = ContinuousClock()
            let end = clock.now + Self.duration
            var count = 0
            while clock.now < end {
                let input = mutator.mutant(of: corpus, maximumBytes: FuzzTarget.maximumBytes)
                let broken = target.run(input)
                count += 1
                #expect(broken == [], "FUZZ_SEED=\(Self.seed), input \(count): \(Corpus.keeping(input, of: target))")
                if !broken.isEmpty { break }
            }
            print("fuzzing \(target.rawValue): \(count) inputs")
        }
    }
}
