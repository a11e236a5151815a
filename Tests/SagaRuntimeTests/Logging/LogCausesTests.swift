import Logging
import Synchronization
import Testing

@testable import SagaRuntime

@Suite struct LogCausesTests {
    /// What was logged, and a clock that a test sets.
    private final class Record: Sendable {
        let lines = Mutex<[String]>([])
        let seconds = Mutex<Int64>(0)

        func logger(_ level: Logger.Level = .info) -> Logger {
            Logger(label: "test") { _ in Handler(record: self, logLevel: level) }
        }
        func causes() -> LogCauses {
            LogCauses { BootTime(nanoseconds: self.seconds.withLock { $0 } * 1_000_000_000) }
        }
        func wait(_ seconds: Int64) { self.seconds.withLock { $0 += seconds } }
        func take() -> [String] {
            self.lines.withLock { lines in
                defer { lines = [] }
                return lines
            }
        }
    }

    private struct Handler: LogHandler {
        let record: Record
        var logLevel: Logger.Level
        var metadata: Logger.Metadata = [:]

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            let metadata = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }
            self.record.lines.withLock { $0.append("\(event.level) \(event.message)\(metadata.joined())") }
        }
    }

    @Test func oneLineACauseAndMinute() {
        let record = Record()
        let log = record.causes().thinning(record.logger())
        for number in 0..<300 {
            log.log(.warning, cause: "away", "try \(number)")
            log.log(.error, cause: "other", "other")
        }
        #expect(record.take() == ["warning try 0", "error other"])
        record.wait(59)
        log.log(.warning, cause: "away", "too early")
        #expect(record.take().isEmpty)
        record.wait(1)
        log.log(.warning, cause: "away", "again")
        #expect(record.take() == ["warning again unlogged_before=300"])
        record.wait(60)
        log.log(.warning, cause: "away", "and again")
        #expect(record.take() == ["warning and again"])
    }

    @Test func whatIsLeftOutStandsAtDebug() {
        let record = Record()
        let log = record.causes().thinning(record.logger(.debug))
        for number in 0..<3 { log.log(.warning, cause: "away", "try \(number)") }
        #expect(record.take() == ["warning try 0", "debug try 1", "debug try 2"])
    }

    @Test func lessSevereLevelsCostAndCountNothing() {
        let record = Record()
        let log = record.causes().thinning(record.logger(.error))
        log.log(.warning, cause: "away", Self.madeForNobody())
        log.log(.error, cause: "away", "first")
        #expect(record.take() == ["error first"])
    }

    private static func madeForNobody() -> Logger.Message {
        Issue.record("made for nobody")
        return ""
    }

    @Test func linesWithoutACauseAreAsTheyWere() {
        let record = Record()
        var log = record.causes().thinning(record.logger())
        log[metadataKey: "kept"] = "yes"
        #expect(log[metadataKey: "kept"] == "yes")
        for _ in 0..<2 { log.error("parked", metadata: ["saga_id": "s"]) }
        #expect(record.take() == ["error parked saga_id=s", "error parked saga_id=s"])
    }

    /// The engine thins by itself, and so may whoever gave it its logger.
    @Test func twiceThinnedIsThinnedOnce() {
        let record = Record()
        let log = record.causes().thinning(record.causes().thinning(record.logger()))
        for number in 0..<3 { log.log(.warning, cause: "away", "try \(number)") }
        record.wait(60)
        log.log(.warning, cause: "away", "again")
        #expect(record.take() == ["warning try 0", "warning again unlogged_before=2"])
    }

    /// A cause that ends leaves its count all the same.
    @Test func whatWasLeftOutIsToldOnceItIsQuiet() {
        let record = Record()
        let causes = record.causes()
        let log = causes.thinning(record.logger())
        for number in 0..<5 { log.log(.warning, cause: "away", "try \(number)") }
        log.log(.warning, cause: "once", "once")
        _ = record.take()
        record.wait(74)
        causes.tellLeftOut(to: log)
        #expect(record.take().isEmpty, "it may still come and tell by itself")
        record.wait(1)
        causes.tellLeftOut(to: log)
        #expect(record.take() == ["warning try 4 (the last of several) unlogged_before=4"])
        causes.tellLeftOut(to: log)
        #expect(record.take().isEmpty)
        log.log(.warning, cause: "away", "anew")
        #expect(record.take() == ["warning anew"])
    }

    @Test func causesAreBounded() {
        let record = Record()
        let causes = record.causes()
        let log = causes.thinning(record.logger())
        for number in 0..<10_000 { log.log(.warning, cause: "cause \(number)", "line \(number)") }
        #expect(record.take().count == LogCauses.maximumCauses + 1)
        // Those that have had their minute make room, and what was left out of all others is told.
        record.wait(60)
        log.log(.warning, cause: "cause 9999", "known now")
        #expect(record.take() == ["warning known now"])
        record.wait(15)
        causes.tellLeftOut(to: log)
        #expect(
            record.take() == [
                "warning line 9999 (the last of several) unlogged_before=\(10_000 - LogCauses.maximumCauses - 1)"
            ])
    }
}
