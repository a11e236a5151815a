import Logging
import Synchronization
import Testing

@testable import devicerpc

@Suite struct LineLogHandlerTests {
    private func line(_ format: LogFormat, _ body: (Logger) -> Void) -> String {
        let lines = Mutex("")
        let logger = Logger(label: "test") { label in
            LineLogHandler(label: label, format: format, level: .info) { line, _ in lines.withLock { $0 += line } }
        }
        body(logger)
        return lines.withLock { $0 }
    }

    @Test func textIsOneLineWithSortedMetadata() {
        let line = self.line(.text) {
            $0.info("[SAGA] step\nstarted", metadata: ["step": "START_DEVICE", "attempt": "2", "note": "a b\u{1b}"])
        }
        let rest = line.drop { $0 != "I" }
        #expect(rest == "INFO     test: [SAGA] step\\nstarted attempt=2 note=\"a b\\u001b\" step=START_DEVICE\n")
        #expect(line.prefix(24).hasSuffix("Z"))
    }

    @Test func jsonKeepsNumbersAndEscapes() {
        let line = self.line(.json) {
            $0.error("a\"b\n", metadata: ["attempt": .stringConvertible(3), "level": "x", "list": ["a", "b"]])
        }
        let rest = line.drop { $0 != "," }
        #expect(
            rest
                == ",\"level\":\"error\",\"logger\":\"test\",\"message\":\"a\\\"b\\n\",\"attempt\":3,\"level_\":\"x\",\"list\":[\"a\",\"b\"]}\n"
        )
    }

    @Test func lessSevereLevelsAreSilent() {
        #expect(self.line(.text) { $0.debug("x") }.isEmpty)
    }

    @Test func timesAreRFC3339() {
        #expect(WallClock.render(1_769_860_800_123_456) == "2026-01-31T12:00:00.123Z")
        #expect(WallClock.render(0) == "1970-01-01T00:00:00.000Z")
    }
}
