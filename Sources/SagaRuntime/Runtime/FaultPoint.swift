#if FAULT_POINTS
    import Glibc
    import Synchronization
#endif

/// Named points at which a test build kills itself, as `kill -9` would (the crash matrix).
///
/// `DEVICERPC_FAULT=<name>[:<nth>]` kills the process at the nth hit of a point; `DEVICERPC_FAULT_LOG=<file>` gets the
/// name first, synced. `DEVICERPC_FAULT_SIGNAL=STOP` stops the process there instead, until somebody continues it; that
/// is also what points named `….sending` are for, between the look at the lease and a request. In release builds a point costs nothing and does nothing.
public enum FaultPoint {
    /// Every point that the running code can hit.
    public static let all: [String] = {
        // What only sagas write that sleep, wait for jobs or are given commands has tests of its own.
        let kinds: [SagaRecord.Kind] = [.create, .forward, .intent, .retry, .undo, .end, .park, .adopt]
        let flushes = kinds.flatMap {
            ["flush.\($0.rawValue).before", "flush.\($0.rawValue).after"]
        }
        let calls = ["CREATE_PROVIDER_DEVICE", "REPORT_QUOTA_USAGE", "START_DEVICE"].flatMap { step in
            ["execute", "compensate"].filter { !(step == "START_DEVICE" && $0 == "compensate") }.flatMap { kind in
                ["call.\(step).\(kind).before", "call.\(step).\(kind).during", "call.\(step).\(kind).after"]
            }
        }
        // Of the sagas that delete, start, stop and restart what is there. A claim's call is over before it has been under way for long.
        let operations = ["CLAIM_DEVICE", "DESTROY_PROVIDER_DEVICE", "RELEASE_QUOTA", "STOP_DEVICE"].flatMap { step in
            ["before", "during", "after"].filter { !(step == "CLAIM_DEVICE" && $0 == "during") }
                .map { "call.\(step).execute.\($0)" }
        }
        let resolutions = ["CREATE_PROVIDER_DEVICE", "REPORT_QUOTA_USAGE", "START_DEVICE"].flatMap { step in
            ["call.\(step).resolve.before", "call.\(step).resolve.after"]
        }
        return flushes + ["claim.after"] + calls + operations + resolutions
    }()

    #if FAULT_POINTS
        private static let wanted: (name: String, nth: Int)? = {
            guard let value = getenv("DEVICERPC_FAULT") else { return nil }
            let parts = String(cString: value).split(separator: ":")
            guard let name = parts.first else { return nil }
            return (String(name), parts.count > 1 ? Int(parts[1]) ?? 1 : 1)
        }()
        private static let hits = Mutex(0)

        /// Whether the process was started as one that behaves so, e.g. as an older program.
        static func isWanted(_ name: String) -> Bool { Self.wanted?.name == name }

        public static func hit(_ name: @autoclosure () -> String) {
            guard let wanted = Self.wanted, wanted.name == name() else { return }
            let count = Self.hits.withLock { hits in
                hits += 1
                return hits
            }
            if count == wanted.nth { Self.act(at: wanted.name) }
        }

        private static func act(at name: String) {
            if let path = getenv("DEVICERPC_FAULT_LOG") {
                let file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0o644)
                if file >= 0 {
                    let line = Array((name + "\n").utf8)
                    _ = write(file, line, line.count)
                    fsync(file)
                    close(file)
                }
            }
            if let signal = getenv("DEVICERPC_FAULT_SIGNAL"), String(cString: signal) == "STOP" {
                kill(getpid(), SIGSTOP)
                // The signal may reach this thread last.
                usleep(50_000)
                return
            }
            kill(getpid(), SIGKILL)
            while true { pause() }
        }
    #else
        static func isWanted(_ name: String) -> Bool { false }

        @inline(__always)
        public static func hit(_ name: @autoclosure () -> String) {}
    #endif
}
