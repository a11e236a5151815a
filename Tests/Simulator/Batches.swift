import Glibc

@testable import SagaRuntime

/// Runs many seeds in processes of their own, some at a time: a run leaves tasks that never end, and a process has room for
/// some hundred of them. Prints what the processes print, in the order of the seeds, and one line for all.
struct Batches {
    let options: Options
    /// Of one process.
    private static let seeds: UInt64 = 100

    private struct Process {
        var output: UnsafeMutablePointer<FILE>
        var seeds: ClosedRange<UInt64>
    }

    private var failed: [String] = []
    private var sums: [String: Double] = [:]
    private var statuses: [String: Int] = [:]
    private var digest = Digest()
    private var count = 0

    init(_ options: Options) { self.options = options }

    mutating func run() -> Int32 {
        let begin = ContinuousClock.now
        var rest = self.chunks[...]
        var running: [Process] = []
        var hasBroken = false
        while true {
            while running.count < self.options.jobs, let seeds = rest.popFirst() {
                let spent = ContinuousClock.now - begin
                if let atMost = self.options.atMost, spent > atMost { break }
                guard let output = popen(self.command(seeds, spent), "r") else {
                    print("simulator: no process: \(String(cString: strerror(errno)))")
                    return 3
                }
                running.append(Process(output: output, seeds: seeds))
            }
            if running.isEmpty { break }
            // In their order. What the others say meanwhile fits into their pipes.
            let process = running.removeFirst()
            self.read(process.output)
            let status = pclose(process.output)
            // As <sys/wait.h>: the exit code, unless a signal ended it.
            if status & 0x7f != 0 || (status >> 8) & 0xff > 1 {
                hasBroken = true
                print(
                    "simulator: seeds \(process.seeds.lowerBound) to \(process.seeds.upperBound) ended with \(status)")
            }
        }
        let summary = Summary(
            seeds: self.options.seeds.count, count: self.count, time: ContinuousClock.now - begin, sums: self.sums,
            statuses: self.statuses, digest: self.digest)
        print(summary.text)
        if !self.failed.isEmpty { print("FAILED seeds: \(self.failed.joined(separator: " "))") }
        return self.failed.isEmpty && !hasBroken ? 0 : 1
    }

    private var chunks: [ClosedRange<UInt64>] {
        let seeds = self.options.seeds
        let length = min(Self.seeds, (UInt64(seeds.count) + UInt64(self.options.jobs) - 1) / UInt64(self.options.jobs))
        return stride(from: seeds.lowerBound, through: seeds.upperBound, by: Int(length)).map {
            $0...min($0 + length - 1, seeds.upperBound)
        }
    }

    private func command(_ seeds: ClosedRange<UInt64>, _ spent: Duration) -> String {
        var words = [
            "exec", "'\(Self.program)'", "--from", "\(seeds.lowerBound)", "--seeds", "\(seeds.count)", "--jobs", "1",
            "--verbose", "--lines", "\(self.options.lines)", "--shrink", "\(self.options.shrinks.components.seconds)",
        ]
        if let mutant = self.options.mutant { words += ["--mutant", mutant.rawValue] }
        if let atMost = self.options.atMost {
            words += ["--at-most", "\(max(1, (atMost - spent).components.seconds))"]
        }
        return words.joined(separator: " ")
    }

    private static var program: String {
        var path = [CChar](repeating: 0, count: 4096)
        let length = readlink("/proc/self/exe", &path, path.count - 1)
        return String(decoding: path.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private mutating func read(_ output: UnsafeMutablePointer<FILE>) {
        var line: UnsafeMutablePointer<CChar>?
        var capacity = 0
        defer { free(line) }
        while getline(&line, &capacity, output) > 0, let text = line.map({ String(cString: $0) }) {
            self.take(text.last == "\n" ? String(text.dropLast()) : text)
        }
    }

    private mutating func take(_ line: String) {
        let words = line.split(separator: " ")
        switch words.first {
        case "seed" where words.count > 3 && words[2] != "FAILED:":
            self.digest.add(String(words[2]))
            self.count += 1
            if self.options.isVerbose { print(line) }
        case "sums":
            for (name, value) in zip(words.dropFirst(), words.dropFirst(2)) {
                if let value = Double(value) { self.sums[String(name), default: 0] += value }
            }
        case "ends":
            for (name, value) in zip(words.dropFirst(), words.dropFirst(2)) {
                if let value = Int(value) { self.statuses[String(name), default: 0] += value }
            }
        case "FAILED":
            self.failed += words.dropFirst(2).map(String.init)
        default:
            // The line for all is ours to write.
            if !line.contains(Summary.mark) { print(line) }
        }
        fflush(nil)
    }
}

/// Over the digests of single runs, in the order of their seeds.
struct Digest {
    private var value: UInt64 = 0xcbf2_9ce4_8422_2325

    mutating func add(_ text: String) {
        for byte in text.utf8 { self.value = (self.value ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
    }

    var text: String { String(self.value, radix: 16) }
}

/// The line at the end.
struct Summary {
    static let mark = " an hour), digest "
    var seeds: Int
    var count: Int
    var time: Duration
    var sums: [String: Double]
    var statuses: [String: Int]
    var digest: Digest

    var text: String {
        let seconds = Double(self.time.nanoseconds) / 1e9
        let ends = self.statuses.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        let hours = Self.rounded((self.sums["virtual"] ?? 0) / 3600)
        return """
            \(self.count) of \(self.seeds) seeds in \(Self.rounded(seconds)) s (\(Int(Double(self.count) / seconds * 3600))\(Self.mark)\(self.digest.text): \
            \(Int(self.sums["sagas"] ?? 0)) sagas (\(ends)), \(hours) virtual hours, \(Int(self.sums["requests"] ?? 0)) \
            requests to PostgreSQL
            """
    }

    /// For whoever adds up several.
    var parts: String {
        let sums = self.sums.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: " ")
        let ends = self.statuses.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: " ")
        return "sums \(sums)\nends \(ends)"
    }

    private static func rounded(_ number: Double) -> String {
        let tenths = Int((number * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}
