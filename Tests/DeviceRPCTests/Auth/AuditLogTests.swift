import NIOCore
import Testing

@testable import DeviceRPC

@Suite struct AuditLogTests {
    @Test func callersThatAreNotKnownGetOneLineASecond() {
        var unknown = AuditLog.UnknownCallers()
        let start = NIODeadline.now()
        #expect(unknown.admit(at: start) == 0)
        for _ in 0..<1000 { #expect(unknown.admit(at: start + .milliseconds(999)) == nil) }
        #expect(unknown.admit(at: start + .seconds(1)) == 1000)
        #expect(unknown.admit(at: start + .seconds(1)) == nil)
        #expect(unknown.admit(at: start + .seconds(2)) == 1)
    }

    @Test func whatCallersMadeUpIsCutAndEscaped() {
        #expect(AuditLog.shown("ann@example.org") == "ann@example.org")
        #expect(AuditLog.shown("ann\n\u{1b}[2J\u{2028}\u{202e}") == "ann\\n\\u{1B}[2J\\u{2028}\\u{202E}")
        #expect(AuditLog.shown(String(repeating: "ä", count: 256)) == String(repeating: "ä", count: 256))
        #expect(AuditLog.shown(String(repeating: "ä", count: 257)) == String(repeating: "ä", count: 256) + "…")
    }
}
