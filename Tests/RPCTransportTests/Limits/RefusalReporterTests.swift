import Dispatch
import Logging
import Synchronization
import Testing

@testable import RPCTransport

@Suite struct RefusalReporterTests {
    /// Stands where nobody takes what is written.
    private struct StuckLog: LogHandler {
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info
        let lines: Counter
        let isTaken: DispatchSemaphore

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            self.lines.increment()
            self.isTaken.wait()
        }
    }

    /// `report` is called on event loops.
    @Test func aLogThatBlocksBlocksNobodyElse() async {
        let (lines, isTaken) = (Counter(), DispatchSemaphore(value: 0))
        let reporter = RefusalReporter(
            observer: nil, logger: Logger(label: "test") { _ in StuckLog(lines: lines, isTaken: isTaken) })
        for _ in 0..<100 {
            for refusal in RPCRefusal.allCases { reporter.report(refusal, peer: "somebody") }
        }
        #expect(await eventually { lines.count > 0 })
        #expect(lines.count == 1, "nor do lines wait for it")
        isTaken.signal()
    }
}
