import Fuzzing
import Glibc

/// What libFuzzer calls with each input; FUZZ_TARGET says for which target. Built by `./dev fuzz` only.
@c public func LLVMFuzzerTestOneInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    guard let target else {
        print("FUZZ_TARGET must be one of \(FuzzTarget.allCases.map(\.rawValue))")
        exit(2)
    }
    let broken = target.run(Array(UnsafeBufferPointer(start: data, count: count)))
    guard broken.isEmpty else {
        for rule in broken { print("broken: \(rule)") }
        fflush(nil)
        abort()
    }
    return 0
}

private let target = getenv("FUZZ_TARGET").flatMap { FuzzTarget(rawValue: String(cString: $0)) }
