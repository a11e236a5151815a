import Logging
import NIOCore
import NIOPosix
import RPCTransport
import Synchronization
import Testing

@testable import DeviceRPC

@Suite struct AuditLogTests {
    /// Keeps what is logged, and whether that was on an event loop.
    private final class Record: Sendable {
        struct Line { var metadata: Logger.Metadata; var isOnLoop: Bool }

        private let written = Mutex<[Line]>([])

        var lines: [Line] { self.written.withLock { $0 } }

        func write(_ metadata: Logger.Metadata) {
            let isOnLoop = MultiThreadedEventLoopGroup.currentEventLoop != nil
            self.written.withLock { $0.append(Line(metadata: metadata, isOnLoop: isOnLoop)) }
        }
    }

    private struct RecordingLog: LogHandler {
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info
        let record: Record

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }

        func log(event: LogEvent) { self.record.write(event.metadata ?? [:]) }
    }

    private let record = Record()
    private let seconds = Counter()

    private func audit() -> AuditLog {
        AuditLog(
            logger: Logger(label: "test") { [record] _ in RecordingLog(record: record) },
            now: { [seconds] in .uptimeNanoseconds(0) + .seconds(Int64(seconds.value)) })
    }

    private final class Counter: Sendable {
        private let count = Atomic<Int>(1)
        var value: Int { self.count.load(ordering: .relaxed) }
        func increment() { self.count.add(1, ordering: .relaxed) }
    }

    private func call(_ user: String?, _ method: String = "CreateDevice") -> RPCContext {
        RPCContext(
            method: "/\(DeviceService.name)/\(method)", peer: "somewhere",
            identity: user.map { Caller(.user($0), permissions: []) })
    }

    private func trail(_ sagaID: String) -> AuditTrail {
        let trail = AuditTrail()
        trail.note { $0.sagaID = sagaID }
        return trail
    }

    /// In the caller's own words, of which nothing breaks the line.
    @Test func whatOperatorsDoIsToldWithTheReason() async {
        let trail = self.trail("saga_1")
        trail.note { $0.reason = "not\nneeded " + String(repeating: "x", count: 2000) }
        let context = RPCContext(
            method: "/\(DeviceAdminService.name)/CompensateSaga", peer: "somewhere",
            identity: Caller(.user("root"), permissions: .all))
        await self.audit().ended(context, .ok, trail)
        let reason = "\(self.record.lines.first?.metadata["reason"] ?? "")"
        #expect(reason.hasPrefix("not\\nneeded xx") && reason.hasSuffix("x…") && reason.count < 1010)
        #expect(self.record.lines.first?.metadata["saga_id"] == "saga_1")
    }

    @Test func refusalsAreToldOnceASecondForEachCaller() async {
        let audit = self.audit()
        for _ in 0..<100 {
            await audit.refused(self.call("ann"), .permissionDenied)
            await audit.ended(self.call("ann"), .invalidArgument, AuditTrail())
            await audit.refused(self.call(nil), .unauthenticated)
            await audit.refused(self.call("ann", "GetDevice"), .permissionDenied)
        }
        await audit.refused(self.call("bob"), .permissionDenied)
        #expect(self.record.lines.map { "\($0.metadata["caller"] ?? "")" } == ["user:ann", "unknown", "user:bob"])
        self.seconds.increment()
        await audit.ended(self.call("ann"), .invalidArgument, AuditTrail())
        #expect(self.record.lines.last?.metadata["unlogged_before"] == "199")
        #expect(self.record.lines.last?.metadata["outcome"] == "INVALID_ARGUMENT")
    }

    /// Whatever its caller was told: a saga that was begun goes on.
    @Test func whatMayHaveChangedSomethingIsAlwaysTold() async {
        let audit = self.audit()
        for code in [RPCCode.ok, .deadlineExceeded, .aborted, .unavailable] {
            for _ in 0..<3 { await audit.ended(self.call("ann"), code, self.trail("saga")) }
        }
        await audit.ended(self.call("ann"), .ok, AuditTrail())
        #expect(self.record.lines.count == 13)
    }

    /// Who is known and may not call is refused where the call's headers were read.
    @Test func refusalsAreWrittenAwayFromTheEventLoop() async throws {
        let audit = self.audit()
        let context = self.call("ann")
        try await MultiThreadedEventLoopGroup.singleton.next().submit {
            Task.immediate { await audit.refused(context, .permissionDenied) }
        }.get().value
        #expect(self.record.lines.map(\.isOnLoop) == [false])
    }

    @Test func whatCallersMadeUpIsCutAndEscaped() {
        #expect(AuditLog.shown("ann@example.org") == "ann@example.org")
        #expect(AuditLog.shown("ann\n\u{1b}[2J\u{2028}\u{202e}") == "ann\\n\\u{1B}[2J\\u{2028}\\u{202E}")
        #expect(AuditLog.shown(String(repeating: "ä", count: 256)) == String(repeating: "ä", count: 256))
        #expect(AuditLog.shown(String(repeating: "ä", count: 257)) == String(repeating: "ä", count: 256) + "…")
    }
}
